// The digits network in onnxruntime-web. `demo.read` and `demo.classify` are also what the
// test of this page calls.

const SIZE = 8; // pixels of a side
const LEVELS = 16; // the value of a pixel that is full of ink
const INK = 19.5; // pixels' worth of ink in an image: the mean of the training images
const CENTRE = 4.07; // where their centre of mass lies, from the left
const FINE = 128; // side of the image that is averaged
const $ = (id) => document.getElementById(id);

let session, engine, digits;
let strokes = []; // lists of [x, y], from 0 to 1
let shown = -1; // number of the test digit, or -1

const blank = () => Object.assign(document.createElement("canvas"), { width: FINE, height: FINE });
const fine = blank().getContext("2d", { willReadFrequently: true });

function trace(context, lines, width) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const line of lines) {
    context.beginPath();
    context.moveTo(...line[0]);
    // A line of no length is a dot.
    for (const point of line.length > 1 ? line.slice(1) : line) context.lineTo(...point);
    context.stroke();
  }
}

// The share of ink in each pixel, for strokes that are moved and scaled to fit the image.
function drawn(lines, pen) {
  const xs = lines.flat().map(([x]) => x), ys = lines.flat().map(([, y]) => y);
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [wide, high] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const scale = (FINE - pen) / Math.max(wide, high, 1e-6);
  const at = (shift) => lines.map((line) => line.map(([x, y]) => [
    (x - left - wide / 2) * scale + FINE / 2 + shift, (y - top - high / 2) * scale + FINE / 2,
  ]));
  const grey = (shift) => {
    fine.clearRect(0, 0, FINE, FINE);
    trace(fine, at(shift), pen);
    const { data } = fine.getImageData(0, 0, FINE, FINE);
    const sums = new Float64Array(SIZE * SIZE), block = FINE / SIZE;
    for (let i = 0; i < FINE * FINE; i++) {
      const row = Math.floor(i / FINE / block), column = Math.floor((i % FINE) / block);
      sums[row * SIZE + column] += data[4 * i + 3] / 255 / block / block;
    }
    return sums;
  };
  const first = grey(0), ink = first.reduce((a, b) => a + b, 0);
  const mean = first.reduce((sum, value, i) => sum + value * ((i % SIZE) + 0.5), 0) / ink;
  const room = Math.max(0, (FINE - pen - wide * scale) / 2);
  const shift = (CENTRE - mean) * FINE / SIZE;
  return grey(Math.max(-room, Math.min(room, shift)));
}

// 64 numbers from 0 to 16 for strokes, as in the data set: the pen is as wide as it takes
// for the usual amount of ink.
export function read(lines) {
  let [low, high] = [FINE / 16, FINE / 2.5], found;
  for (let i = 0; i < 7; i++) {
    const pen = (low + high) / 2;
    found = drawn(lines, pen);
    if (found.reduce((a, b) => a + b, 0) < INK) low = pen;
    else high = pen;
  }
  return Uint8Array.from(found, (value) => Math.round(value * LEVELS));
}

// The logits of images of 64 numbers, one after another.
export async function classify(images) {
  const shape = [images.length / SIZE / SIZE, SIZE, SIZE, 1];
  const input = new engine.Tensor("uint8", images, shape);
  return (await session.run({ input })).output.data;
}

export const argmax = (scores) => scores.indexOf(Math.max(...scores));

async function time(image) {
  const times = [];
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    for (let j = 0; j < 20; j++) await classify(image);
    times.push((performance.now() - start) / 20);
  }
  times.sort((a, b) => a - b);
  $("time").textContent = `${times[2].toFixed(2)} ms`;
}

function paint(image) {
  const context = $("pixels").getContext("2d"), side = 64 / SIZE;
  image.forEach((value, i) => {
    const grey = 255 - Math.round(value / LEVELS * 255);
    context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    context.fillRect((i % SIZE) * side, Math.floor(i / SIZE) * side, side, side);
  });
}

function bars(shares) {
  const best = shares ? argmax(shares) : -1;
  [...$("scores").children].forEach((row, i) => {
    const share = shares ? shares[i] : 0;
    row.className = i === best ? "best" : "";
    row.querySelector("i").style.width = `${100 * share}%`;
    row.querySelector(".percent").textContent = shares ? `${(100 * share).toFixed(1)} %` : "";
  });
}

async function answer(image) {
  paint(image);
  const logits = await classify(image), top = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  bars(powers.map((power) => power / sum));
  $("answer").textContent = argmax(logits);
  $("label").textContent = shown < 0 ? "" : `test digit ${shown + 1} of ${digits.count}: a ${digits.labels[shown]}`;
}

const pad = $("pad"), paper = pad.getContext("2d");
let pen = null; // of the keyboard: [x, y, down]

function redraw() {
  const side = pad.width;
  paper.clearRect(0, 0, side, side);
  paper.strokeStyle = getComputedStyle(pad).color;
  if (shown >= 0) {
    const image = digits.images.subarray(shown * 64, shown * 64 + 64), cell = side / SIZE;
    paper.fillStyle = paper.strokeStyle;
    image.forEach((value, i) => {
      paper.globalAlpha = value / LEVELS;
      paper.fillRect((i % SIZE) * cell, Math.floor(i / SIZE) * cell, cell, cell);
    });
    paper.globalAlpha = 1;
  }
  trace(paper, strokes.map((line) => line.map(([x, y]) => [x * side, y * side])), side / 14);
  if (pen) {
    paper.lineWidth = 3;
    paper.beginPath();
    paper.arc(pen[0] * side, pen[1] * side, pen[2] ? 12 : 22, 0, 7);
    paper.stroke();
  }
}

let waiting = false;
function changed() { // at most once a frame
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(async () => {
    waiting = false;
    redraw();
    if (session && strokes.length) await answer(read(strokes));
  });
}

function begin(point) {
  if (shown >= 0) clear();
  strokes.push([point]);
  changed();
}

function clear() {
  strokes = [];
  shown = -1;
  pen = null;
  bars(null);
  paint(new Uint8Array(64));
  $("answer").textContent = $("label").textContent = "";
  redraw();
}

async function show(step) {
  const next = shown < 0 ? (step > 0 ? 0 : digits.count - 1) : shown + step;
  clear();
  shown = (next + digits.count) % digits.count;
  redraw();
  await answer(digits.images.slice(shown * 64, shown * 64 + 64));
}

const place = (event) => {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
pad.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  pad.setPointerCapture(event.pointerId);
  pen = null;
  begin(place(event));
});
pad.addEventListener("pointermove", (event) => {
  if (!pad.hasPointerCapture(event.pointerId)) return;
  const all = event.getCoalescedEvents?.() ?? [];
  strokes.at(-1).push(...(all.length ? all : [event]).map(place));
  changed();
});

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
pad.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step && ![" ", "Backspace"].includes(event.key)) return;
  event.preventDefault();
  if (event.key === "Backspace") return clear();
  pen ??= [0.5, 0.2, false];
  if (step) {
    pen = [0, 1].map((i) => Math.min(0.95, Math.max(0.05, pen[i] + step[i] / 20))).concat(pen[2]);
    if (pen[2]) strokes.at(-1).push(pen.slice(0, 2));
    changed();
  } else {
    const [x, y, down] = pen;
    if (!down) begin([x, y]);
    pen = [x, y, !down];
    changed();
  }
});
pad.addEventListener("blur", () => { pen = null; redraw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
$("clear").addEventListener("click", clear);
$("next").addEventListener("click", () => show(1));
$("previous").addEventListener("click", () => show(-1));
$("all").addEventListener("click", async () => {
  const logits = await classify(digits.images);
  let right = 0;
  for (let i = 0; i < digits.count; i++) {
    right += argmax(logits.slice(10 * i, 10 * i + 10)) === digits.labels[i];
  }
  $("right").textContent = `${right} right`;
});

async function bytes(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`cannot read ${name}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

// A page without onnxruntime-web is built where npm is missing; it says so.
async function start() {
  for (let i = 0; i < 10; i++) {
    const row = document.createElement("li");
    row.innerHTML = `<span>${i}</span><span class="bar"><i></i></span><span class="percent"></span>`;
    $("scores").append(row);
  }
  clear();
  const buttons = document.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  $("status").textContent = "Loading the engine (14 MB) …";
  try {
    engine = await import("./ort/ort.wasm.min.mjs");
  } catch {
    $("status").textContent = "This copy of the site was built without onnxruntime-web, the "
      + "engine that runs the network. Where npm is installed, `make docs` fetches it.";
    return;
  }
  try {
    engine.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
    engine.env.wasm.numThreads = 1; // threads need headers that a plain server does not send
    const [model, all] = await Promise.all([bytes("digits.onnx"), bytes("digits.bin")]);
    const count = all.length / 65;
    digits = { count, images: all.slice(0, 64 * count), labels: all.slice(64 * count) };
    session = await engine.InferenceSession.create(model);
    $("bytes").textContent = `${model.length.toLocaleString("en")} bytes, ONNX`;
    $("engine").textContent = `onnxruntime-web ${engine.env.versions.web}, WebAssembly, one thread`;
    await time(digits.images.slice(0, 64));
  } catch (error) {
    $("status").textContent = `The network could not be started: ${error.message}`;
    return;
  }
  buttons.forEach((button) => { button.disabled = false; });
  $("status").textContent = "";
  changed();
  document.body.dataset.ready = "yes";
}
start();
