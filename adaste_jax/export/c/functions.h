/* What a network may call, in this order, and without libm. A function is copied
 * into `network.h` if it is called, so that each stands alone between blank lines.
 */
#include <stdint.h>

/* The sum of x[i] times weight at + i, which is 1 or -1, a bit of w. */
static float signed_sum_1(const float *x, const uint32_t *w, uint32_t at, int32_t n)
{
    float sum = 0;
    for (int32_t i = 0; i < n; i++, at++)
        sum += x[i] * (float)((int32_t)(w[at / 32] >> at % 32 << 1 & 2) - 1);
    return sum;
}

/* The sum of x[i] times weight at + i, which is -1, 0 or 1, two bits of w. */
static float signed_sum_2(const float *x, const uint32_t *w, uint32_t at, int32_t n)
{
    float sum = 0;
    for (int32_t i = 0; i < n; i++, at++)
        sum += x[i] * (float)((int32_t)(w[at / 16] >> at % 16 * 2 & 3) - 1);
    return sum;
}

/* An index within 0 ... n - 1. */
static int32_t clip(int32_t i, int32_t n)
{
    return i < 0 ? 0 : i < n ? i : n - 1;
}

/* Towards zero; what does not fit becomes the nearest that does, NaN becomes 0. */
static int32_t to_int(float x)
{
    if (x >= 2147483648.0f)
        return 2147483647;
    return x >= -2147483648.0f ? (int32_t)x : x != x ? 0 : -2147483647 - 1;
}

/* The largest whole number that is no more than x. */
static float round_down(float x)
{
    if (!(x > -8388608.0f && x < 8388608.0f))
        return x;
    return (float)((int32_t)x - (x < (float)(int32_t)x));
}

/* The nearest whole number; halves go to the even one. */
static float round_even(float x)
{
    float low = round_down(x), rest = x - low;
    if (rest > 0.5f || (rest == 0.5f && (int32_t)low % 2))
        low += 1;
    return low;
}

/* The square root, by Newton's method from above. */
static float root(float x)
{
    float r = x < 1 ? 1 : x, last;
    if (x < 0)
        return 0.0f / 0.0f;
    do {
        last = r;
        r = (r + x / r) / 2;
    } while (r < last);
    return last;
}

/* exp(x) as 2^n exp(rest), the rest within log(2) / 2 of 0. */
static float exponential(float x)
{
    if (!(x < 89.0f))
        return x != x ? x : 1.0f / 0.0f;
    if (x < -104.0f)
        return 0;
    int32_t n = (int32_t)round_down(x * 1.44269504f + 0.5f);
    float r = x - (float)n * 0.693359375f - (float)n * -2.12194440e-4f, y = 1;
    for (int32_t k = 8; k; k--)
        y = 1 + y * r / (float)k;
    for (; n > 0; n--)
        y *= 2;
    for (; n < 0; n++)
        y /= 2;
    return y;
}
