/* Steps of a plan, as plain data: what they read and write are offsets, so that a plan can be
 * written to a file. sparsemend/runtime/steps.py has the same structures. */
#ifndef SPARSEMEND_STEPS_H
#define SPARSEMEND_STEPS_H

#include <stdint.h>

/* Where the values of a tensor lie in the arena. All units are floats.
 *
 * Layout "planes" (lanes = 1): every image has a plane for every channel, in rows of `pitch`
 * positions, the first `width` of which are the image's; all others are zero. What is right of a
 * row is thereby left of the next one.
 * Layout "batches" (lanes = vector length): the same, but every position holds one value of each of
 * `lanes` images. */
struct view {
    int64_t origin;  /* of image 0, channel 0, row 0, column 0 */
    int64_t image;   /* from an image, or group of `lanes` images, to the next */
    int64_t channel; /* from a channel to the next */
    int32_t channels, height, width, pitch;
};

enum step_kind {
    STEP_CONVOLUTION,    /* sparse; in, other (is added), out */
    STEP_LINEAR,         /* sparse, one position, layout planes; in, other, out */
    STEP_PHASES,         /* layout planes: out[(c * stride + i) * stride + j] is in[c][i::stride, j::stride] */
    STEP_ACTIVATION,     /* elementwise; in, other (is added), out */
    STEP_COPY,           /* in to out, of the same size, whatever the pitch */
    STEP_MAX_POOL,
    STEP_AVERAGE_POOL,
    STEP_GLOBAL_AVERAGE,
    STEP_SOFTMAX,        /* over channels */
    STEP_LOAD,           /* from a contiguous tensor [N, C, H, W] outside the arena */
    STEP_STORE           /* to one */
};

enum activation { ACT_NONE, ACT_RELU, ACT_RELU6, ACT_HARDSWISH, ACT_HARDSIGMOID, ACT_SILU,
                  ACT_GELU, ACT_GELU_TANH, ACT_SIGMOID, ACT_TANH };

/* A kept weight, and from where its input is read: bytes from the input of the position. */
struct nonzero {
    float weight;
    int32_t offset;
};

struct step {
    int32_t kind;
    int32_t lanes;      /* 1 for layout planes */
    int32_t images;     /* images, or groups of them */
    int32_t batch;      /* images outside the arena */
    int32_t activation; /* enum activation */
    int32_t added;      /* whether `other` is added */
    struct view in, out, other;
    int32_t tile_rows, tile_columns; /* of vectors that are computed at once */
    int32_t blocks;     /* of input channels, one after the other */
    int32_t stride_y, stride_x, kernel_y, kernel_x, pad_y, pad_x, dilation_y, dilation_x;
    int32_t count_padding;
    int32_t external;   /* which tensor outside the arena */
    int64_t phases;     /* bits: which phases are needed */
    int64_t nonzeros;   /* byte offsets in the weights: struct nonzero[] */
    int64_t rows;       /* int32[blocks][channels + 1]: where each output channel begins */
    int64_t bias;       /* float[channels] */
    int64_t mask;       /* int32, a lane each: all ones where the output is inside of the image;
                         * -1 where all are */
};

#endif
