/* All steps for one vector length. Included once for every instruction set, with
 *   LANES      floats of a vector
 *   NAME(x)    name of a function for this instruction set
 *   TARGET     attribute of such functions
 *   MOST       accumulators that registers can hold
 *   PLANES     if defined, layout planes alone: fewer kernels to compile
 * Vectors are those of the compiler (GCC and Clang), so that this is plain C for any machine. */

/* Aligned like a float: vectors are read from anywhere. */
typedef float NAME(vec) __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t NAME(ivec) __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define VEC NAME(vec)
#define IVEC NAME(ivec)
#define INLINE TARGET static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

INLINE VEC NAME(all)(float x) { return x - (VEC){0}; }
INLINE VEC NAME(load)(const void *p) { return *(const VEC *)p; }
INLINE void NAME(store)(void *p, VEC v) { *(VEC *)p = v; }
/* v where the comparison m holds, else w; written so that NaN stays NaN where it is compared. */
INLINE VEC NAME(choose)(IVEC m, VEC v, VEC w) { return (VEC)((m & (IVEC)v) | (~m & (IVEC)w)); }
INLINE VEC NAME(relu)(VEC v) { return (VEC)(~(v < (VEC){0}) & (IVEC)v); }
INLINE VEC NAME(least)(VEC v, float most) {
    VEC m = NAME(all)(most);
    return NAME(choose)(v > m, m, v);
}

/* exp by a polynomial, to about 1e-7 relative. */
INLINE VEC NAME(exp)(VEC x) {
    IVEC broken = x != x;
    VEC y = NAME(choose)(x > 88.0f, NAME(all)(88.0f), x);
    y = NAME(choose)(y < -87.0f, NAME(all)(-87.0f), y);
    y = NAME(choose)(broken, (VEC){0}, y);
    VEC t = y * 1.44269504088896341f;
    t = t + NAME(choose)(t < 0, NAME(all)(-0.5f), NAME(all)(0.5f));
    IVEC n = __builtin_convertvector(t, IVEC);
    VEC k = __builtin_convertvector(n, VEC);
    VEC r = y - k * 0.693359375f + k * 2.12194440e-4f;
    VEC p = NAME(all)(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return NAME(choose)(broken, x, p * (VEC)((n + 127) << 23));
}
INLINE VEC NAME(sigmoid)(VEC x) { return 1.0f / (1.0f + NAME(exp)(-x)); }
INLINE VEC NAME(tanh)(VEC x) {
    VEC small = x - x * x * x * (1.0f / 3.0f); /* where 1 - exp would cancel */
    VEC big = 2.0f * NAME(sigmoid)(2.0f * x) - 1.0f;
    return NAME(choose)((x < 0.02f) & (x > -0.02f), small, big);
}
/* 1 + erf(x / sqrt 2); Abramowitz and Stegun 7.1.26, to 2e-7. */
INLINE VEC NAME(one_plus_erf)(VEC x) {
    VEC z = x * 0.70710678118654752f;
    VEC a = NAME(choose)(z < 0, -z, z);
    VEC t = 1.0f / (1.0f + 0.3275911f * a);
    VEC p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t +
             0.254829592f) * t * NAME(exp)(-a * a);
    return NAME(choose)(z < 0, p, 2.0f - p);
}
/* Every other float, from p and from p + 1. */
#if LANES == 16
#define EVERY_OTHER(a, b, i) __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6, i + 8, i + 10, \
    i + 12, i + 14, i + 16, i + 18, i + 20, i + 22, i + 24, i + 26, i + 28, i + 30)
#else
#define EVERY_OTHER(a, b, i) \
    __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6, i + 8, i + 10, i + 12, i + 14)
#endif
INLINE VEC NAME(even)(const float *p) {
    return EVERY_OTHER(NAME(load)(p), NAME(load)(p + LANES), 0);
}
INLINE VEC NAME(odd)(const float *p) {
    return EVERY_OTHER(NAME(load)(p), NAME(load)(p + LANES), 1);
}
INLINE VEC NAME(activate)(VEC v, int32_t activation) {
    switch (activation) {
    case ACT_RELU: return NAME(relu)(v);
    case ACT_RELU6: return NAME(least)(NAME(relu)(v), 6.0f);
    case ACT_HARDSWISH: return v * NAME(least)(NAME(relu)(v + 3.0f), 6.0f) * (1.0f / 6.0f);
    case ACT_HARDSIGMOID: return NAME(least)(NAME(relu)(v + 3.0f), 6.0f) * (1.0f / 6.0f);
    case ACT_SILU: return v * NAME(sigmoid)(v);
    case ACT_GELU: return 0.5f * v * NAME(one_plus_erf)(v);
    case ACT_GELU_TANH:
        return v * NAME(sigmoid)(1.5957691216057308f * (v + 0.044715f * v * v * v));
    case ACT_SIGMOID: return NAME(sigmoid)(v);
    case ACT_TANH: return NAME(tanh)(v);
    default: return v;
    }
}

/* A tile: some output positions of a range of output channels. */
struct NAME(place) {
    const char *in;               /* input of the first position */
    const struct nonzero *kept;
    const int32_t *begin;         /* of each channel's kept weights */
    const float *bias;
    char *out;                    /* of channel 0 */
    const char *added;            /* of channel 0, or NULL */
    const IVEC *mask;             /* or NULL */
    ptrdiff_t in_row, out_row, added_row;     /* bytes between rows of the tile */
    ptrdiff_t out_channel, added_channel;     /* bytes between channels */
    int from, to;                 /* output channels */
    int activation;               /* ACT_NONE, ACT_RELU or ACT_RELU6; others are steps of their own */
    int first, last;              /* block of input channels: sums start at the bias, are finished */
};

/* The r-th row of a tile: one addition. Otherwise compilers keep an address for every vector of the
 * tile, for which there are too few registers. */
INLINE const char *NAME(row)(const char *p, int r, ptrdiff_t in_row) {
    const char *row = p + r * in_row;
    if (r) __asm__("" : "+r"(row));
    return row;
}

/* R x T vectors of one output channel: they stay in registers while the kept weights pass. Several
 * sets of sums (`chains`) hide the latency where there are few vectors. S is the distance between
 * the inputs of neighbouring vectors, in vectors. */
INLINE void NAME(tile)(const int R, const int T, const int S, const int chains,
                       const struct NAME(place) *at) {
    const struct NAME(place) p = *at;
    const int size = R * T;
    char *out = p.out + p.from * p.out_channel;
    const char *added = p.added ? p.added + p.from * p.added_channel : 0;
    const struct nonzero *w = p.kept + p.begin[p.from];
    for (int c = p.from; c < p.to; c++, out += p.out_channel, added += p.added_channel) {
        const struct nonzero *end = p.kept + p.begin[c + 1];
        VEC sum[MOST];
        if (p.first) {
            UNROLL for (int i = 0; i < size; i++) sum[i] = NAME(all)(p.bias[c]);
        } else {
            UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++)
                sum[r * T + t] = NAME(load)(out + r * p.out_row + t * (LANES * 4));
        }
        UNROLL for (int i = size; i < chains * size; i++) sum[i] = (VEC){0};
        if (chains > 1)
            for (; end - w >= chains; w += chains)
                UNROLL for (int k = 0; k < chains; k++) {
                    const VEC weight = NAME(all)(w[k].weight);
                    UNROLL for (int r = 0; r < R; r++) {
                        const char *row = NAME(row)(p.in + w[k].offset, r, p.in_row);
                        UNROLL for (int t = 0; t < T; t++)
                            sum[k * size + r * T + t] +=
                                weight * NAME(load)(row + t * (S * LANES * 4));
                    }
                }
        for (; w < end; w++) {
            const VEC weight = NAME(all)(w->weight);
            UNROLL for (int r = 0; r < R; r++) {
                const char *row = NAME(row)(p.in + w->offset, r, p.in_row);
                UNROLL for (int t = 0; t < T; t++)
                    sum[r * T + t] += weight * NAME(load)(row + t * (S * LANES * 4));
            }
        }
        UNROLL for (int k = 1; k < chains; k++) UNROLL for (int i = 0; i < size; i++)
            sum[i] += sum[k * size + i];
        if (p.last) {
            if (p.added)
                UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++)
                    sum[r * T + t] += NAME(load)(added + r * p.added_row + t * (LANES * 4));
            if (p.activation != ACT_NONE)
                UNROLL for (int i = 0; i < size; i++) sum[i] = NAME(relu)(sum[i]);
            if (p.activation == ACT_RELU6)
                UNROLL for (int i = 0; i < size; i++) sum[i] = NAME(least)(sum[i], 6.0f);
            if (p.mask)
                UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++)
                    sum[r * T + t] = (VEC)((IVEC)sum[r * T + t] & p.mask[t]);
        }
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++)
            NAME(store)(out + r * p.out_row + t * (LANES * 4), sum[r * T + t]);
    }
}

typedef void (*NAME(kernel))(const struct NAME(place) *);
#define CHAINS(n) ((n) * 2 > MOST || (n) >= 8 ? 1 : (n) * 4 > MOST || (n) >= 4 ? 2 : 4)
#define KERNEL(R, T, S)                                                                          \
    TARGET static void NAME(tile_##R##_##T##_##S)(const struct NAME(place) *at) {                \
        NAME(tile)(R, T, S, CHAINS((R) * (T)), at);                                              \
    }
#ifdef PLANES
#define KERNELS(R, T) KERNEL(R, T, 1)
#define PAIR(R, T) {NAME(tile_##R##_##T##_1), 0}
#else
#define KERNELS(R, T) KERNEL(R, T, 1) KERNEL(R, T, 2)
#define PAIR(R, T) {NAME(tile_##R##_##T##_1), NAME(tile_##R##_##T##_2)}
#endif
/* clang-format off */
KERNELS(1, 1) KERNELS(1, 2) KERNELS(1, 3) KERNELS(1, 4) KERNELS(1, 5) KERNELS(1, 6) KERNELS(1, 7)
KERNELS(1, 8) KERNELS(1, 9) KERNELS(1, 10) KERNELS(1, 11) KERNELS(1, 12)
#ifndef PLANES
KERNELS(2, 2) KERNELS(2, 3) KERNELS(2, 4) KERNELS(2, 5) KERNELS(2, 6)
KERNELS(3, 2) KERNELS(3, 3) KERNELS(3, 4) KERNELS(4, 2) KERNELS(4, 3)
#endif
#if MOST >= 28
KERNELS(1, 13) KERNELS(1, 14) KERNELS(1, 15) KERNELS(1, 16)
#endif
#if MOST >= 28 && !defined(PLANES)
KERNELS(2, 7) KERNELS(2, 8) KERNELS(2, 14) KERNELS(3, 7) KERNELS(3, 8) KERNELS(4, 4) KERNELS(4, 7)
#endif
static const NAME(kernel) NAME(kernels)[5][17][2] = {
    [1] = {[1] = PAIR(1, 1), [2] = PAIR(1, 2), [3] = PAIR(1, 3), [4] = PAIR(1, 4),
           [5] = PAIR(1, 5), [6] = PAIR(1, 6), [7] = PAIR(1, 7), [8] = PAIR(1, 8),
           [9] = PAIR(1, 9), [10] = PAIR(1, 10), [11] = PAIR(1, 11), [12] = PAIR(1, 12),
#if MOST >= 28
           [13] = PAIR(1, 13), [14] = PAIR(1, 14), [15] = PAIR(1, 15), [16] = PAIR(1, 16),
#endif
    },
#ifndef PLANES
    [2] = {[2] = PAIR(2, 2), [3] = PAIR(2, 3), [4] = PAIR(2, 4), [5] = PAIR(2, 5), [6] = PAIR(2, 6),
#if MOST >= 28
           [7] = PAIR(2, 7), [8] = PAIR(2, 8), [14] = PAIR(2, 14),
#endif
    },
    [3] = {[2] = PAIR(3, 2), [3] = PAIR(3, 3), [4] = PAIR(3, 4),
#if MOST >= 28
           [7] = PAIR(3, 7), [8] = PAIR(3, 8),
#endif
    },
    [4] = {[2] = PAIR(4, 2), [3] = PAIR(4, 3),
#if MOST >= 28
           [4] = PAIR(4, 4), [7] = PAIR(4, 7),
#endif
    },
#endif
};
/* clang-format on */

INLINE int32_t NAME(vectors)(int32_t n) { return (n + LANES - 1) / LANES; }

/* The part of `total` tasks that is this thread's. */
INLINE void NAME(part)(int64_t total, int thread, int threads, int64_t *from, int64_t *to) {
    *from = total * thread / threads;
    *to = total * (thread + 1) / threads;
}

/* One tile, whose first input is at `in`. Rows that no kernel has are taken one at a time. */
TARGET static void NAME(convolve)(const struct step *s, const char *weights, const float *in,
                                  float *out, const float *added, int rows, int columns,
                                  int first_vector, int from, int to) {
    const int lanes = s->out.lanes, apart = lanes == 1 ? 1 : s->stride_x;
    int step_rows = rows, step_columns = columns;
    NAME(kernel) kernel = apart <= 2 ? NAME(kernels)[rows][columns][apart - 1] : 0;
    if (!kernel) {
        step_rows = 1;
        step_columns = apart <= 2 ? columns : 1;
        kernel = NAME(kernels)[1][step_columns][apart <= 2 ? apart - 1 : 0];
    }
    struct NAME(place) at = {
        .kept = (const struct nonzero *)(weights + s->nonzeros),
        .bias = (const float *)(weights + s->bias),
        .in_row = (ptrdiff_t)s->stride_y * s->in.pitch * lanes * 4,
        .out_row = (ptrdiff_t)s->out.pitch * lanes * 4,
        .added_row = (ptrdiff_t)s->other.pitch * lanes * 4,
        .out_channel = s->out.channel * 4,
        .added_channel = s->other.channel * 4,
        .from = from,
        .to = to,
        .activation = s->activation,
    };
    for (int b = 0; b < s->blocks; b++) {
        at.begin = (const int32_t *)(weights + s->rows) + (int64_t)b * (s->out.channels + 1);
        at.first = b == 0;
        at.last = b == s->blocks - 1;
        for (int y = 0; y < rows; y += step_rows)
            for (int x = 0; x < columns; x += step_columns) {
                at.in = (const char *)in + y * at.in_row + (ptrdiff_t)x * apart * LANES * 4;
                at.out = (char *)out + y * at.out_row + x * LANES * 4;
                at.added = added ? (const char *)added + y * at.added_row + x * LANES * 4 : 0;
                at.mask = s->mask < 0 ? 0 : (const IVEC *)(weights + s->mask) + first_vector + x;
                kernel(&at);
            }
    }
}

TARGET static void NAME(convolution)(const struct step *s, float *arena, const char *weights,
                                     int thread, int threads) {
    const int planes = s->out.lanes == 1;
    const int32_t vectors = planes ? NAME(vectors)(s->out.height * s->out.pitch) : s->out.width;
    const int32_t height = planes ? 1 : s->out.height;
    const int32_t across = (vectors + s->tile_columns - 1) / s->tile_columns;
    const int32_t tiles = across * ((height + s->tile_rows - 1) / s->tile_rows);
    int64_t groups = 1; /* of output channels, where there are too few tiles for all threads */
    if ((int64_t)s->images * tiles < 4 * (int64_t)threads && threads > 1) {
        groups = 4 * threads;
        if (groups > s->out.channels) groups = s->out.channels;
    }
    int64_t task, last;
    NAME(part)((int64_t)s->images * tiles * groups, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t group = task % groups, image = task / groups / tiles;
        const int32_t tile = (int32_t)(task / groups % tiles);
        const int32_t y = tile / across * s->tile_rows, x = tile % across * s->tile_columns;
        const int rows = y + s->tile_rows > height ? height - y : s->tile_rows;
        const int columns = x + s->tile_columns > vectors ? vectors - x : s->tile_columns;
        const float *in = arena + s->in.origin + image * s->in.image;
        if (planes) in += x * LANES;
        else in += ((int64_t)y * s->stride_y * s->in.pitch + (int64_t)x * s->stride_x) * LANES;
        const int64_t at = image * s->out.image + ((int64_t)y * s->out.pitch + x) * LANES;
        const int64_t other = image * s->other.image + ((int64_t)y * s->other.pitch + x) * LANES;
        NAME(convolve)(s, weights, in, arena + s->out.origin + at,
                       s->added ? arena + s->other.origin + other : 0, rows, columns, x,
                       (int)(s->out.channels * group / groups),
                       (int)(s->out.channels * (group + 1) / groups));
    }
}

INLINE float NAME(activate_one)(float x, int32_t activation) {
    return NAME(activate)(NAME(all)(x), activation)[0];
}

TARGET static void NAME(linear)(const struct step *s, float *arena, const char *weights, int thread,
                                int threads) {
    const struct nonzero *w = (const struct nonzero *)(weights + s->nonzeros);
    const int32_t *begin = (const int32_t *)(weights + s->rows);
    const float *bias = (const float *)(weights + s->bias);
    int64_t task, last;
    NAME(part)((int64_t)s->images * s->out.channels, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t image = task / s->out.channels, c = task % s->out.channels;
        const char *x = (const char *)(arena + s->in.origin + image * s->in.image);
        float a = 0, b = 0, d = 0, e = 0;
        int32_t n = begin[c];
        for (; n + 4 <= begin[c + 1]; n += 4) {
            a += w[n].weight * *(const float *)(x + w[n].offset);
            b += w[n + 1].weight * *(const float *)(x + w[n + 1].offset);
            d += w[n + 2].weight * *(const float *)(x + w[n + 2].offset);
            e += w[n + 3].weight * *(const float *)(x + w[n + 3].offset);
        }
        for (; n < begin[c + 1]; n++) a += w[n].weight * *(const float *)(x + w[n].offset);
        float y = bias[c] + ((a + b) + (d + e));
        if (s->added) y += arena[s->other.origin + image * s->other.image + c * s->other.channel];
        if (s->activation) y = NAME(activate_one)(y, s->activation);
        arena[s->out.origin + image * s->out.image + c * s->out.channel] = y;
    }
}

/* One row of an image into rows of its `sx` phases, `apart` floats from each other. */
INLINE void NAME(split_row)(const float *row, float *out, int64_t apart, int32_t sx, int32_t given,
                            int32_t whole) {
    int32_t x = 0;
    if (sx == 2)
        for (; 2 * x + 2 * LANES <= given; x += LANES) {
            NAME(store)(out + x, NAME(even)(row + 2 * x));
            NAME(store)(out + apart + x, NAME(odd)(row + 2 * x));
        }
    for (; x < whole; x++)
        for (int32_t j = 0; j < sx; j++) out[j * apart + x] = sx * x + j < given ? row[sx * x + j] : 0;
}

TARGET static void NAME(phases)(const struct step *s, float *arena, int thread, int threads) {
    const int32_t sy = s->stride_y, sx = s->stride_x;
    const struct view in = s->in, out = s->out;
    int64_t task, last;
    NAME(part)((int64_t)s->images * in.channels * sy, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t image = task / sy / in.channels, c = task / sy % in.channels, i = task % sy;
        if (!(s->phases >> i & 1)) continue;
        const float *row = arena + in.origin + image * in.image + c * in.channel + i * in.pitch;
        float *to = arena + out.origin + image * out.image + (c * sy + i) * sx * out.channel;
        for (int32_t y = 0; y < out.height; y++, row += (int64_t)sy * in.pitch, to += out.pitch)
            NAME(split_row)(row, to, out.channel, sx, i + y * sy < in.height ? in.width : 0, out.width);
    }
}

/* Elementwise: layout planes is one run of vectors, layout batches one for every row. */
TARGET static void NAME(activation)(const struct step *s, float *arena, const char *weights,
                                    int thread, int threads) {
    const int planes = s->out.lanes == 1;
    const int32_t rows = planes ? 1 : s->out.height;
    const int32_t vectors = planes ? NAME(vectors)(s->out.height * s->out.pitch) : s->out.width;
    const IVEC *mask = s->mask < 0 ? 0 : (const IVEC *)(weights + s->mask);
    int64_t task, last;
    NAME(part)((int64_t)s->images * s->out.channels, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t image = task / s->out.channels, c = task % s->out.channels;
        const float *in = arena + s->in.origin + image * s->in.image + c * s->in.channel;
        const float *added = arena + s->other.origin + image * s->other.image + c * s->other.channel;
        float *out = arena + s->out.origin + image * s->out.image + c * s->out.channel;
        for (int32_t y = 0; y < rows; y++)
            for (int32_t x = 0; x < vectors; x++) {
                VEC v = NAME(load)(in + ((int64_t)y * s->in.pitch + x) * LANES);
                if (s->added) v += NAME(load)(added + ((int64_t)y * s->other.pitch + x) * LANES);
                v = NAME(activate)(v, s->activation);
                if (mask) v = (VEC)((IVEC)v & mask[x]);
                NAME(store)(out + ((int64_t)y * s->out.pitch + x) * LANES, v);
            }
    }
}

/* Where a row and column of an image lies in a view, counted from the image's first. */
INLINE int64_t NAME(place_of)(const struct view *v, int32_t y, int32_t x) {
    const int32_t lane = y / v->height * v->lanes_x + x / v->width;
    return ((int64_t)(y % v->height) * v->pitch + x % v->width) * v->lanes + lane;
}

TARGET static void NAME(copy)(const struct step *s, float *arena, int thread, int threads) {
    const struct view in = s->in, out = s->out;
    const int alike = in.lanes == out.lanes && in.lanes_y == out.lanes_y && in.lanes_x == out.lanes_x;
    int64_t task, last;
    NAME(part)((int64_t)s->images * in.channels, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t image = task / in.channels, c = task % in.channels;
        const float *from = arena + in.origin + image * in.image + c * in.channel;
        float *to = arena + out.origin + image * out.image + c * out.channel;
        if (alike)
            for (int32_t y = 0; y < in.height; y++)
                memcpy(to + (int64_t)y * out.pitch * in.lanes, from + (int64_t)y * in.pitch * in.lanes,
                       (size_t)in.width * in.lanes * 4);
        else /* runs of positions that are in one row of one block of either */
            for (int32_t y = 0; y < in.height * in.lanes_y; y++)
                for (int32_t x = 0, n; x < in.width * in.lanes_x; x += n) {
                    const float *a = from + NAME(place_of)(&in, y, x);
                    float *b = to + NAME(place_of)(&out, y, x);
                    n = in.width < out.width ? in.width : out.width;
                    for (int32_t k = 0; k < n; k++) b[k * out.lanes] = a[k * in.lanes];
                }
    }
}

/* Layout blocks: margins of every lane get what the lanes beside, above and below have there. These
 * are a few floats apart, so that one load from there moves all of them. */
TARGET static void NAME(margins)(const struct step *s, float *arena, const char *weights, int thread,
                                 int threads) {
    const VEC fill = NAME(all)(s->fill);
    const struct view v = s->out;
    const int32_t count = s->run_count;
    const int32_t *runs = (const int32_t *)(weights + s->runs);
    int64_t task, last;
    NAME(part)((int64_t)s->images * v.channels, thread, threads, &task, &last);
    for (; task < last; task++) {
        float *block = arena + v.origin + task / v.channels * v.image + task % v.channels * v.channel;
        const int32_t *run = runs;
        for (int32_t i = 0; i < count; i++, run += RUN + LANES) {
            const IVEC inside = *(const IVEC *)(run + RUN);
            float *to = block + run[RUN_TO];
            const float *from = block + run[RUN_FROM];
            for (int32_t n = run[RUN_VECTORS]; n > 0; n--, to += LANES, from += LANES)
                NAME(store)(to, NAME(choose)(inside, NAME(load)(from), fill));
        }
    }
}

/* Maxima or sums of windows; positions outside of the image do not count. Layout blocks: they are in
 * margins, such that they make no difference. */
TARGET static void NAME(pool)(const struct step *s, float *arena, int thread, int threads) {
    const int most = s->kind == STEP_MAX_POOL;
    const int32_t lanes = s->out.lanes, blocks = s->out.lanes_y * s->out.lanes_x > 1;
    int64_t task, last;
    NAME(part)((int64_t)s->images * s->out.channels, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t image = task / s->out.channels, c = task % s->out.channels;
        const float *in = arena + s->in.origin + image * s->in.image + c * s->in.channel;
        float *plane = arena + s->out.origin + image * s->out.image + c * s->out.channel;
        for (int32_t y = 0; y < s->out.height; y++) {
            float *out = plane + (int64_t)y * s->out.pitch * lanes;
            const float start = most ? -INFINITY : 0;
            for (int32_t x = 0; x < s->out.width * lanes; x++) out[x] = start;
            for (int32_t i = 0; i < s->kernel_y; i++) {
                const int32_t row = y * s->stride_y + i * s->dilation_y - s->pad_y;
                if (!blocks && (row < 0 || row >= s->in.height)) continue;
                for (int32_t j = 0; j < s->kernel_x; j++) {
                    const int32_t shift = j * s->dilation_x - s->pad_x, sx = s->stride_x;
                    int32_t from = shift < 0 ? (-shift + sx - 1) / sx : 0;
                    int32_t to = s->in.width - 1 - shift < 0 ? 0 : (s->in.width - 1 - shift) / sx + 1;
                    if (to > s->out.width || blocks) to = s->out.width;
                    if (blocks) from = 0;
                    const float *p = in + ((int64_t)row * s->in.pitch + shift) * lanes;
                    if (lanes == 1) {
                        if (most)
                            for (int32_t x = from; x < to; x++)
                                out[x] = p[x * sx] > out[x] || p[x * sx] != p[x * sx] ? p[x * sx] : out[x];
                        else
                            for (int32_t x = from; x < to; x++) out[x] += p[x * sx];
                    } else {
                        for (int32_t x = from; x < to; x++) {
                            VEC v = NAME(load)(p + (int64_t)x * sx * LANES), o = NAME(load)(out + x * LANES);
                            if (most) v = NAME(choose)((v > o) | (v != v), v, o);
                            else v += o;
                            NAME(store)(out + x * LANES, v);
                        }
                    }
                }
            }
            if (most) continue;
            for (int32_t x = 0; x < s->out.width; x++) {
                int32_t y0 = y * s->stride_y - s->pad_y, x0 = x * s->stride_x - s->pad_x;
                int32_t y1 = y0 + s->kernel_y, x1 = x0 + s->kernel_x;
                /* PyTorch's divisor: the window within the padded image, or within the image. */
                if (y1 > s->in.height + s->pad_y) y1 = s->in.height + s->pad_y;
                if (x1 > s->in.width + s->pad_x) x1 = s->in.width + s->pad_x;
                int32_t count = (y1 - y0) * (x1 - x0);
                if (blocks) {
                    count = s->kernel_y * s->kernel_x;
                } else if (!s->count_padding) {
                    if (y0 < 0) y0 = 0;
                    if (x0 < 0) x0 = 0;
                    if (y1 > s->in.height) y1 = s->in.height;
                    if (x1 > s->in.width) x1 = s->in.width;
                    count = (y1 - y0) * (x1 - x0);
                }
                for (int32_t l = 0; l < lanes; l++) out[x * lanes + l] /= (float)count;
            }
        }
    }
}

TARGET static void NAME(global_average)(const struct step *s, float *arena, int thread, int threads) {
    const struct view in = s->in;
    const float scale = 1.0f / (float)((int64_t)in.height * in.lanes_y * in.width * in.lanes_x);
    int64_t task, last;
    NAME(part)((int64_t)s->images * in.channels, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t image = task / in.channels, c = task % in.channels;
        const float *plane = arena + in.origin + image * in.image + c * in.channel;
        float *out = arena + s->out.origin + image * s->out.image + c * s->out.channel;
        VEC sum = {0};
        float rest = 0;
        for (int32_t y = 0; y < in.height; y++) {
            const float *row = plane + (int64_t)y * in.pitch * in.lanes;
            int32_t x = 0;
            for (; x + LANES <= in.width * in.lanes; x += LANES) sum += NAME(load)(row + x);
            for (; x < in.width * in.lanes; x++) rest += row[x]; /* layout planes only */
        }
        if (s->out.lanes > 1) {
            NAME(store)(out, sum * scale);
        } else {
            for (int l = 0; l < LANES; l++) rest += sum[l];
            *out = rest * scale;
        }
    }
}

TARGET static void NAME(softmax)(const struct step *s, float *arena, int thread, int threads) {
    const int32_t lanes = s->in.lanes;
    int64_t task, last;
    NAME(part)((int64_t)s->images * s->in.height * s->in.width * lanes, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t lane = task % lanes, place = task / lanes;
        const int64_t x = place % s->in.width, y = place / s->in.width % s->in.height;
        const int64_t image = place / s->in.width / s->in.height;
        const float *in = arena + s->in.origin + image * s->in.image + (y * s->in.pitch + x) * lanes + lane;
        float *out = arena + s->out.origin + image * s->out.image + (y * s->out.pitch + x) * lanes + lane;
        float most = in[0];
        for (int32_t c = 1; c < s->in.channels; c++) {
            const float v = in[c * s->in.channel];
            if (v > most || v != v) most = v;
        }
        double sum = 0;
        for (int32_t c = 0; c < s->in.channels; c++) {
            const float e = expf(in[c * s->in.channel] - most);
            out[c * s->out.channel] = e;
            sum += e;
        }
        for (int32_t c = 0; c < s->in.channels; c++)
            out[c * s->out.channel] = (float)(out[c * s->out.channel] / sum);
    }
}

/* Between the arena and a tensor of `batch` images. Lanes beyond the batch are zero. Channels are
 * taken together, so that those of one position are read or written at once where they are side by
 * side in the tensor. */
#define TOGETHER 16
TARGET static void NAME(exchange)(const struct step *s, float *arena, float *outside, int thread,
                                  int threads) {
    const int load = s->kind == STEP_LOAD;
    const struct view v = load ? s->out : s->in;
    const int64_t beside = s->outside_column, lanes = v.lanes, blocks = v.lanes_y * v.lanes_x;
    const int32_t together = beside == 1 ? 1 : TOGETHER;
    const int32_t groups = (v.channels + together - 1) / together;
    int64_t task, last;
    NAME(part)((int64_t)s->images * groups, thread, threads, &task, &last);
    for (; task < last; task++) {
        const int64_t image = task / groups, c = task % groups * together;
        const int32_t channels = v.channels - c < together ? (int32_t)(v.channels - c) : together;
        for (int64_t l = 0; l < lanes; l++) {
            const int64_t n = image * (lanes / blocks) + l / blocks, block = l % blocks;
            if (n >= s->batch && !load) continue;
            for (int32_t y = 0; y < v.height; y++) {
                float *a = arena + v.origin + image * v.image + c * v.channel + y * v.pitch * lanes + l;
                float *b = outside + n * s->outside_image + c * s->outside_channel +
                           (block / v.lanes_x * v.height + y) * s->outside_row +
                           block % v.lanes_x * v.width * beside;
                if (n >= s->batch) {
                    for (int32_t k = 0; k < channels; k++)
                        for (int32_t x = 0; x < v.width; x++) a[k * v.channel + x * lanes] = 0;
                } else if (beside == 1) {
                    if (load) for (int32_t x = 0; x < v.width; x++) a[x * lanes] = b[x];
                    else for (int32_t x = 0; x < v.width; x++) b[x] = a[x * lanes];
                } else {
                    for (int32_t x = 0; x < v.width; x++, a += lanes, b += beside)
                        if (load) for (int32_t k = 0; k < channels; k++) a[k * v.channel] = b[k];
                        else for (int32_t k = 0; k < channels; k++) b[k] = a[k * v.channel];
                }
            }
        }
    }
}

TARGET static void NAME(run_step)(const struct step *s, float *arena, const char *weights,
                                  float *const *outside, int thread, int threads) {
    switch (s->kind) {
    case STEP_CONVOLUTION: NAME(convolution)(s, arena, weights, thread, threads); break;
    case STEP_LINEAR: NAME(linear)(s, arena, weights, thread, threads); break;
    case STEP_PHASES: NAME(phases)(s, arena, thread, threads); break;
    case STEP_ACTIVATION: NAME(activation)(s, arena, weights, thread, threads); break;
    case STEP_COPY: NAME(copy)(s, arena, thread, threads); break;
    case STEP_MARGINS: NAME(margins)(s, arena, weights, thread, threads); break;
    case STEP_MAX_POOL:
    case STEP_AVERAGE_POOL: NAME(pool)(s, arena, thread, threads); break;
    case STEP_GLOBAL_AVERAGE: NAME(global_average)(s, arena, thread, threads); break;
    case STEP_SOFTMAX: NAME(softmax)(s, arena, thread, threads); break;
    case STEP_LOAD:
    case STEP_STORE:
        NAME(exchange)(s, arena, outside[s->external], thread, threads);
        break;
    }
}

#undef VEC
#undef IVEC
#undef INLINE
#undef UNROLL
#undef CHAINS
#undef EVERY_OTHER
#undef TOGETHER
#undef KERNEL
#undef KERNELS
#undef PAIR
