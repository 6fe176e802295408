/* A network with packed weights, written by adaste_jax $version.
 *
 *     network(input, output);
 *
 * takes an example $takes, in C order, and gives
 * $gives. Between layers it keeps NETWORK_MEMORY bytes.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

${numbers}
typedef $input network_input;
typedef $output network_output;

${tables}${memory}
${functions}static void network(const network_input *input, network_output *output)
{
${statements}}

#endif
