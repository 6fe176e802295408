// Runs an ONNX model in onnxruntime-web for `benchmarks.engines`: a line of JSON on the
// standard input for each batch, whose numbers are in a file; a line back, and the outputs
// in another file.
//
//     node engine_web.mjs FOLDER_OF_THE_ENGINE MODEL INPUTS OUTPUTS

import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, model, inputs, outputs] = process.argv.slice(2);
const ort = await import(pathToFileURL(`${folder}/ort.wasm.min.mjs`).href);
ort.env.wasm.wasmPaths = pathToFileURL(`${folder}/`).href;
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(model));
const KINDS = { float32: Float32Array, uint8: Uint8Array };

for await (const line of createInterface({ input: process.stdin })) {
  const { dtype, shape } = JSON.parse(line);
  const data = new KINDS[dtype](new Uint8Array(readFileSync(inputs)).buffer);
  const input = new ort.Tensor(dtype, data, shape);
  const start = performance.now();
  const { output } = await session.run({ input });
  const seconds = (performance.now() - start) / 1000;
  writeFileSync(outputs, output.data);
  console.log(JSON.stringify({ shape: output.dims, seconds }));
}
