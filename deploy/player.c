/* ---- The player: the same for every policy; tables stand at the end of the file ------------------------------

   data = clip(p x + q output),    x <- clip'(c data + d x) + std clip(noise),    once per denoising step

   A layer's matrix is stored input by input, rows padded with zeros, so the inner loop adds rows to the output and
   compilers vectorise it. Inputs that are zero, half of them behind a ReLU, cost nothing: their rows are not read.
*/

#include <math.h>
#include <stddef.h>
#include <string.h>

#define NP_ROWS 8 /* added at a time */

#ifdef __GNUC__
#define NP_ALIGNED __attribute__((aligned(64)))
#else
#define NP_ALIGNED
#endif

#if NP_BFLOAT16
typedef uint32_t np_word; /* two weights: column j in the low half, column j + columns / 2 in the high one */
#define NP_PER_WORD 2
#else
typedef float np_word;
#define NP_PER_WORD 1
#endif

typedef struct {
    int rows, columns; /* inputs, padded outputs */
    const np_word *weight; /* (rows, columns) */
    const float *bias; /* (columns) */
} np_layer;

typedef struct {
    int n_condition, n_layers;
    const np_layer *condition; /* from the observation to the condition */
    np_layer from_condition; /* the first layer's share of the condition, and its bias */
    np_layer from_x; /* its share of the chunk */
    const float *time; /* (steps, from_x.columns): its share of the time, known beforehand */
    const np_layer *layers; /* the others */
} np_network;

static const float np_steps[5 * NP_STEPS]; /* p, q, c, d, std of each */
static const float np_observation_center[NP_FEATURES], np_observation_scale[NP_FEATURES];
static const float np_action_center[NP_CHUNK], np_action_half[NP_CHUNK];
static const np_network np_networks[NP_FIRST_TUNED ? 2 : 1]; /* a frozen one for the first steps, the tuned one */
static const char np_metadata[NP_METADATA_SIZE];

/* Elementary functions, without branches, relative errors below 3e-7 (tanh, exp) */

static inline float np_float(uint32_t bits)
{
    union { uint32_t bits; float value; } both;
    both.bits = bits;
    return both.value;
}

static inline int np_is_finite(float x)
{
    union { float value; uint32_t bits; } both; /* as bits, so that -ffast-math cannot assume the answer */
    both.value = x;
    return (both.bits & 0x7f800000u) != 0x7f800000u;
}

static inline float np_clip(float x, float bound)
{
    x = x > bound ? bound : x;
    return x < -bound ? -bound : x;
}

static inline float np_bounded(float noise)
{
#ifdef NP_NOISE_CLIP
    return np_clip(noise, NP_NOISE_CLIP);
#else
    return noise;
#endif
}

#if NP_ACTIVATION != NP_RELU
static inline float np_exp(float x)
{
    /* 2^n e^r with |r| <= ln(2) / 2 */
    x = x > -87.0f ? x : -87.0f;
    x = x < 88.0f ? x : 88.0f;
    const int biased = (int)(x * 1.44269504f + 127.5f);
    const float n = (float)(biased - 127);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float e = 0.00138146f;
    e = e * r + 0.00836872f;
    e = e * r + 0.04166839f;
    e = e * r + 0.16666521f;
    e = e * r + 0.5f;
    e = e * (r * r) + r + 1.0f;
    return e * np_float((uint32_t)biased << 23);
}
#endif

#if NP_ACTIVATION == NP_GELU || NP_ACTIVATION == NP_TANH
static inline float np_tanh(float x)
{
    const float size = x < 0.0f ? -x : x, s = x * x;
    const float large = 1.0f - 2.0f / (np_exp(2.0f * size) + 1.0f);
    float small = -0.005704985f;
    small = small * s + 0.020639086f;
    small = small * s - 0.053739715f;
    small = small * s + 0.13331442f;
    small = small * s - 0.3333328f;
    small = small * s * x + x;
    return size >= 0.625f ? (x < 0.0f ? -large : large) : small;
}
#endif

static inline float np_activation(float x)
{
#if NP_ACTIVATION == NP_RELU
    return x < 0.0f ? 0.0f : x;
#elif NP_ACTIVATION == NP_MISH
    const float u = np_exp(x < 20.0f ? x : 20.0f), n = u * (u + 2.0f);
    return x * (n / (n + 2.0f));
#elif NP_ACTIVATION == NP_GELU
    return 0.5f * x * (1.0f + np_tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
#elif NP_ACTIVATION == NP_SILU
    return x / (1.0f + np_exp(-x));
#else
    return np_tanh(x);
#endif
}

static void np_activate(const float *restrict x, float *restrict y, int n)
{
    for (int j = 0; j < n; j++)
        y[j] = np_activation(x[j]);
}

/* Layers */

static void np_add_rows(float *restrict y, size_t words, const np_word *const *row, const float *x)
{
    const np_word *restrict a = row[0], *restrict b = row[1], *restrict c = row[2], *restrict d = row[3];
    const np_word *restrict e = row[4], *restrict f = row[5], *restrict g = row[6], *restrict h = row[7];
    const float xa = x[0], xb = x[1], xc = x[2], xd = x[3], xe = x[4], xf = x[5], xg = x[6], xh = x[7];
#if NP_BFLOAT16
    float *restrict z = y + words;
#define NP_LOW(w) np_float((w) << 16)
#define NP_HIGH(w) np_float((w) & 0xffff0000u)
    for (size_t j = 0; j < words; j++) {
        y[j] = (y[j] + xa * NP_LOW(a[j]) + xb * NP_LOW(b[j]) + xc * NP_LOW(c[j]) + xd * NP_LOW(d[j])) +
               (xe * NP_LOW(e[j]) + xf * NP_LOW(f[j]) + xg * NP_LOW(g[j]) + xh * NP_LOW(h[j]));
        z[j] = (z[j] + xa * NP_HIGH(a[j]) + xb * NP_HIGH(b[j]) + xc * NP_HIGH(c[j]) + xd * NP_HIGH(d[j])) +
               (xe * NP_HIGH(e[j]) + xf * NP_HIGH(f[j]) + xg * NP_HIGH(g[j]) + xh * NP_HIGH(h[j]));
    }
#else
    for (size_t j = 0; j < words; j++)
        y[j] = (y[j] + xa * a[j] + xb * b[j] + xc * c[j] + xd * d[j]) +
               (xe * e[j] + xf * f[j] + xg * g[j] + xh * h[j]);
#endif
}

/* y += W x */
static void np_multiply(const np_layer *layer, const float *x, float *y)
{
    static const np_word *row[NP_WIDEST + NP_ROWS];
    static float factor[NP_WIDEST + NP_ROWS];
    const size_t words = (size_t)layer->columns / NP_PER_WORD;
    int count = 0;
    for (int i = 0; i < layer->rows; i++) {
        row[count] = layer->weight + (size_t)i * words;
        factor[count] = x[i];
        count += x[i] != 0.0f;
    }
    for (int i = count; i < count + NP_ROWS; i++) {
        row[i] = layer->weight;
        factor[i] = 0.0f;
    }
    for (int i = 0; i < count; i += NP_ROWS)
        np_add_rows(y, words, row + i, factor + i);
}

/* y = W x + bias */
static void np_apply(const np_layer *layer, const float *x, float *y)
{
    memcpy(y, layer->bias, (size_t)layer->columns * sizeof *y);
    np_multiply(layer, x, y);
}

/* Networks; `base` is what the observation adds to the first layer, once per decision */

static void np_observe(const np_network *network, const float *features, float *base)
{
    static NP_ALIGNED float h[NP_WIDEST], active[NP_WIDEST];
    const float *condition = features;
    for (int i = 0; i < network->n_condition; i++) {
        if (i)
            np_activate(h, active, network->condition[i - 1].columns);
        np_apply(&network->condition[i], i ? active : features, h);
        condition = h;
    }
    np_apply(&network->from_condition, condition, base);
}

static void np_denoise(const np_network *network, int k, const float *base, const float *x, float *output)
{
    static NP_ALIGNED float h[NP_WIDEST], active[NP_WIDEST];
    const int width = network->from_x.columns;
    const float *time = network->time + (size_t)k * (size_t)width;
    const np_layer *layer = network->layers, *end = layer + network->n_layers;
    for (int j = 0; j < width; j++)
        h[j] = base[j] + time[j];
    np_multiply(&network->from_x, x, h);
#if NP_RESIDUAL
    static NP_ALIGNED float inner[NP_WIDEST];
    for (; layer + 1 < end; layer += 2) {
        np_activate(h, active, width);
        np_apply(&layer[0], active, inner);
        np_activate(inner, active, width);
        for (int j = 0; j < width; j++)
            h[j] += layer[1].bias[j];
        np_multiply(&layer[1], active, h);
    }
    np_apply(layer, h, output);
#else
    for (int columns = width; layer < end; columns = layer->columns, layer++) {
        np_activate(h, active, columns);
        np_apply(layer, active, h);
    }
    memcpy(output, h, NP_CHUNK * sizeof *output);
#endif
}

/* What robots call */

int noisepilot_act(const noisepilot_observation *observation, const float *noise,
                   float action[NOISEPILOT_HORIZON][NOISEPILOT_ACTION_DIM])
{
    static NP_ALIGNED float features[NP_WIDEST], x[NP_WIDEST], output[NP_WIDEST], base[2][NP_WIDEST];
    memcpy(features, observation, sizeof *observation);
    for (int i = 0; i < NP_FEATURES; i++) {
        if (!np_is_finite(features[i]))
            return NOISEPILOT_BAD_OBSERVATION;
        features[i] = (features[i] - np_observation_center[i]) * np_observation_scale[i];
    }
    for (int i = 0; i < NOISEPILOT_NOISE_SIZE; i++)
        if (!np_is_finite(noise[i]))
            return NOISEPILOT_BAD_NOISE;

    const int networks = sizeof np_networks / sizeof *np_networks;
    for (int i = 0; i < networks; i++)
        np_observe(&np_networks[i], features, base[i]);
    memcpy(x, noise, NP_CHUNK * sizeof *x);
    for (int k = 0; k < NP_STEPS; k++) {
        const float *step = np_steps + 5 * k;
        const float p = step[0], q = step[1], c = step[2], d = step[3], std = step[4];
        const int which = k < NP_FIRST_TUNED ? 0 : networks - 1;
        np_denoise(&np_networks[which], k, base[which], x, output);
        for (int j = 0; j < NP_CHUNK; j++) {
            float data = p * x[j] + q * output[j];
#ifdef NP_CLIP_DATA
            data = np_clip(data, NP_CLIP_DATA);
#endif
            x[j] = c * data + d * x[j];
#ifdef NP_CLIP_MEAN
            x[j] = np_clip(x[j], NP_CLIP_MEAN);
#endif
            if (std > 0.0f)
                x[j] += std * np_bounded(noise[(k + 1) * NP_CHUNK + j]);
        }
    }
    for (int j = 0; j < NP_CHUNK; j++) {
#ifdef NP_CLIP_MEAN
        x[j] = np_clip(x[j], NP_CLIP_MEAN);
#endif
        x[j] = np_action_center[j] + x[j] * np_action_half[j];
        if (!np_is_finite(x[j]))
            return NOISEPILOT_BAD_ACTION;
    }
    memcpy(action, x, NP_CHUNK * sizeof *x);
    return NOISEPILOT_OK;
}

/* Numbers in (0, 1] by splitmix64 (Steele et al. 2014) */
static double np_uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)((z >> 11) + 1) / 9007199254740992.0;
}

void noisepilot_draw(uint64_t *state, float *noise)
{
    for (int i = 0; i < NOISEPILOT_NOISE_SIZE; i++) { /* Box and Muller 1958 */
        const double radius = sqrt(-2.0 * log(np_uniform(state)));
        noise[i] = (float)(radius * cos(6.283185307179586 * np_uniform(state)));
    }
}

const char *noisepilot_metadata(void)
{
    return np_metadata;
}

#ifdef NOISEPILOT_MAIN
#include <stdio.h>

/* Reads an observation and its noise, writes a chunk, all of them float32, until the input ends. */
int main(void)
{
    static noisepilot_observation observation;
    static float noise[NOISEPILOT_NOISE_SIZE], action[NOISEPILOT_HORIZON][NOISEPILOT_ACTION_DIM];
    while (fread(&observation, sizeof observation, 1, stdin) == 1) {
        if (fread(noise, sizeof noise, 1, stdin) != 1)
            return NOISEPILOT_BAD_NOISE;
        const int refused = noisepilot_act(&observation, noise, action);
        if (refused)
            return refused;
        if (fwrite(action, sizeof action, 1, stdout) != 1)
            return NOISEPILOT_BAD_ACTION;
    }
    return NOISEPILOT_OK;
}
#endif

