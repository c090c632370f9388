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
 * Layout "batches" (lanes = vector length, one lane an image): the same, but every position holds
 * one value of each of `lanes` images.
 * Layout "blocks" (lanes = vector length, lanes_y x lanes_x of them an image): the image is cut
 * into that many blocks of `height` x `width`, and every position holds one value of each block.
 * Neighbours are whole vectors away, so that vectors are aligned. What is beyond the edge of a
 * block is in a margin, which STEP_MARGINS fills. */
struct view {
    int64_t origin;  /* of image 0, channel 0, row 0, column 0 */
    int64_t image;   /* from an image, or group of them, to the next */
    int64_t channel; /* from a channel to the next */
    int32_t channels, height, width, pitch;
    int32_t lanes, lanes_y, lanes_x;
};

enum step_kind {
    STEP_CONVOLUTION,    /* sparse; in, other (is added), out */
    STEP_LINEAR,         /* sparse, one position, layout planes; in, other, out */
    STEP_PHASES,         /* layout planes: out[(c * stride + i) * stride + j] is in[c][i::stride, j::stride] */
    STEP_ACTIVATION,     /* elementwise; in, other (is added), out */
    STEP_COPY,           /* in to out, of the same size, whatever the layout */
    STEP_MAX_POOL,
    STEP_AVERAGE_POOL,
    STEP_GLOBAL_AVERAGE,
    STEP_SOFTMAX,        /* over channels */
    STEP_LOAD,           /* from a tensor [N, C, H, W] outside the arena */
    STEP_STORE,          /* to one */
    STEP_MARGINS         /* layout blocks, in place: what neighbouring blocks hold, else `fill` */
};

enum activation { ACT_NONE, ACT_RELU, ACT_RELU6, ACT_HARDSWISH, ACT_HARDSIGMOID, ACT_SILU,
                  ACT_GELU, ACT_GELU_TANH, ACT_SIGMOID, ACT_TANH };

/* A kept weight, and from where its input is read: bytes from the input of the position. */
struct nonzero {
    float weight;
    int32_t offset;
};

/* A run of vectors in a margin: where it is and where its values are, in floats from the first
 * position of a block; how many vectors; behind these, all ones in lanes that get values, zeros in
 * lanes whose neighbour is outside of the image. */
enum { RUN_TO, RUN_FROM, RUN_VECTORS, RUN };

struct step {
    int32_t kind;
    int32_t images;     /* images, or groups of them */
    int32_t batch;      /* images outside the arena */
    int32_t activation; /* enum activation */
    int32_t added;      /* whether `other` is added */
    struct view in, out, other;
    int32_t tile_rows, tile_columns; /* of vectors that are computed at once */
    int32_t blocks;     /* of input channels, one after the other */
    int32_t stride_y, stride_x, kernel_y, kernel_x, pad_y, pad_x, dilation_y, dilation_x;
    int32_t run_count;  /* of margins */
    int32_t count_padding;
    float fill;
    int32_t external;   /* which tensor outside the arena, and its strides: rows are contiguous,
                         * or, where they are not, channels */
    int64_t outside_image, outside_channel, outside_row, outside_column;
    int64_t phases;     /* bits: which rows of phases are needed */
    int64_t nonzeros;   /* byte offsets in the weights: struct nonzero[] */
    int64_t rows;       /* int32[blocks][channels + 1]: where each output channel begins */
    int64_t bias;       /* float[channels] */
    int64_t mask;       /* int32, a lane each: all ones where the output is inside of the image;
                         * -1 where all are */
    int64_t runs;       /* int32[run_count][RUN + vector length]: each run of a margin */
};

#endif
