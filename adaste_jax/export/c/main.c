/* Runs the network on a file of examples, or on stdin.
 *
 * An example is NETWORK_INPUTS numbers of type network_input, in C order and in the
 * byte order of this machine; examples follow each other. For each row of the output,
 * of NETWORK_CLASSES numbers, a line is printed: the index of the largest, and all.
 */
#include <stdio.h>

#include "network.h"

static network_input input[NETWORK_INPUTS];
static network_output output[NETWORK_OUTPUTS];

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : stdin;
    size_t got;

    if (!file) {
        perror(argv[1]);
        return 1;
    }
    while ((got = fread(input, 1, sizeof input, file)) == sizeof input) {
        network(input, output);
        for (long row = 0; row < NETWORK_OUTPUTS; row += NETWORK_CLASSES) {
            long best = 0;
            for (long i = 1; i < NETWORK_CLASSES; i++)
                if (output[row + i] > output[row + best])
                    best = i;
            printf("%ld", best);
            for (long i = 0; i < NETWORK_CLASSES; i++)
                printf(" %.9g", (double)output[row + i]);
            putchar('\n');
        }
    }
    if (got || ferror(file)) {
        fprintf(stderr, "the input ends within an example, which has %lu bytes\n",
                (unsigned long)sizeof input);
        return 1;
    }
    return fflush(stdout) ? 1 : 0;
}
