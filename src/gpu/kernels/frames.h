// What stands between hidden states and symbols (spec 6.2, 6.4, 6.7, 6.8): a warp takes 32 elements, or a frame.
#pragma once

#include "entropy.h"
#include "warp.h"

// Frames of one model, [count, width], and what becomes of them.
struct Frames {
    i64 count, width;
    // For each frame its quality and its weight of the rate, squared steps a bit.
    const i64 *quality;
    const float *weight;
    // [Q, width]
    const float *offset, *reciprocal_step, *step;
    i64 low, high;
    // Hidden states, and those in steps.
    const float *hidden;
    float *x;
    i16 *y;
    // g_y's output, [count, 2 width]: means and scale indices; for each scale its fraction bits and its first table.
    const i32 *output;
    const i32 *scales;
    u32 *tables;
    i32 *shifts;
    // The bank of Y's tables, and floor(256 log2(1 + i / 256)).
    const Table *bank;
    const u16 *boundaries;
    const u32 *logarithms;
    // Hidden states again.
    float *result;
    // Not 0 if a hidden state is none.
    i32 *fault;
};

#ifdef __CUDACC__
FN float difference(float a, float b) { return __fsub_rn(a, b); }
FN float sum(float a, float b) { return __fadd_rn(a, b); }
FN float times(float a, float b) { return __fmul_rn(a, b); }
#else
// Compiled without contraction.
FN float difference(float a, float b) { return a - b; }
FN float sum(float a, float b) { return a + b; }
FN float times(float a, float b) { return a * b; }
#endif

// The place of an element in the rows that differ by quality.
FN i64 by_quality(const Frames &frames, i64 index) {
    return frames.quality[index / frames.width] * frames.width + index % frames.width;
}

// Spec 6.8: hidden states in steps.
FN void in_steps(const Frames &frames, i64 index) {
    const float value = frames.hidden[index];
    // An infinity less itself is no number, nor is what was none.
    if (!(difference(value, value) == 0.0f)) *frames.fault = 1;
    const i64 own = by_quality(frames, index);
    frames.x[index] = times(difference(value, frames.offset[own]), frames.reciprocal_step[own]);
}

// Spec 6.8: the nearest integers, halves to the even one.
FN void nearest(const Frames &frames, i64 index) {
    const float rounded = rintf(frames.x[index]);
    frames.y[index] = (i16)fminf(fmaxf(rounded, (float)frames.low), (float)frames.high);
}

// Spec 6.2: tables and shifts.
FN void derive(const Frames &frames, i64 index) {
    const i32 *output = frames.output + index / frames.width * (2 * frames.width) + index % frames.width;
    const i32 mean = output[0], *scale = frames.scales + 2 * output[frames.width];
    const i32 bits = scale[0], drop = 6 - bits;
    const i32 q = (mean + ((1 << drop) >> 1)) >> drop, k = q >> bits;
    frames.tables[index] = (u32)(scale[1] + (q & ((1 << bits) - 1)));
    frames.shifts[index] = (i32)min(max((i64)k, frames.low), frames.high);
}

// Spec 6.8: what a value costs, in 1/256 bit.
FN i32 cost(const Frames &frames, i64 index, i32 value) {
    const Table table = frames.bank[frames.tables[index]];
    const i32 place = value - frames.shifts[index] - table.first;
    i32 entry = place + 1, outside = 0;
    if (place < 0) {
        entry = 0;
        outside = -place;
    } else if (place >= table.size) {
        entry = table.size + 1;
        outside = place - table.size + 1;
    }
    const u16 *boundary = frames.boundaries + table.start + entry;
    const u32 mass = (entry > table.size ? 65536u : boundary[1]) - boundary[0];
    i32 exponent = 0;
    while (mass >> (exponent + 1) > 0) ++exponent;
    const u32 fraction = exponent == 0 ? 0 : mass << (32 - exponent) >> 24;
    i32 escape_bits = 0;
    if (outside > 0) {
        i32 below = 0;
        while ((u32)outside >> (below + 1) > 0) ++below;
        escape_bits = 2 * below + (below < 15 ? 1 : 0);
    }
    return (escape_bits + 16) * 256 - (exponent * 256 + (i32)frames.logarithms[fraction]);
}

// Spec 6.8: the second nearest integer where the bits that it saves are worth the distance.
FN void choose(const Frames &frames, i64 index) {
    const float weight = frames.weight[index / frames.width];
    const i32 y = frames.y[index];
    const float distance = difference(frames.x[index], (float)y), far = fabsf(distance);
    const i32 second = distance > 0.0f ? y + 1 : y - 1;
    if (weight > 0.0f && far <= 0.5f && second >= frames.low && second <= frames.high) {
        const i32 saved = cost(frames, index, y) - cost(frames, index, second);
        if (difference(1.0f, times(2.0f, far)) < times((float)saved, weight / 256.0f)) frames.y[index] = (i16)second;
    }
}

// Spec 6.7.
FN void reconstruct(const Frames &frames, i64 index) {
    const i64 own = by_quality(frames, index);
    frames.result[index] = sum(times((float)frames.y[index], frames.step[own]), frames.offset[own]);
}

#define POLYNOMIAL 0xEDB88320u

// The product of two polynomials modulo that of the crc, bits reversed as there.
FN u32 crc_product(u32 a, u32 b) {
    u32 product = 0;
    for (u32 bit = 1u << 31; bit > 0; bit >>= 1) {
        if (a & bit) product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

// x to the power of 8 times a number of bytes.
FN u32 crc_power(i64 bytes) {
    u32 power = 1u << 31, square = 1u << 23;
    for (; bytes > 0; bytes >>= 1) {
        if (bytes & 1) power = crc_product(power, square);
        square = crc_product(square, square);
    }
    return power;
}

// Spec 6.4: the crc of each row of 16-bit values. Each lane of a warp takes a part of a row; parts are as long as each
// other, but for the first ones.
FN void digest(const i16 *values, i64 rows, i64 width, u32 *crcs, i64 warp, i64 warps) {
    DECLARE_LANE;
    const i64 bytes = 2 * width, part = (bytes + 31) / 32;
    for (i64 row = warp; row < rows; row += warps) {
        const i16 *own = values + row * width;
        PER_LANE(u32, crc);
        LANES {
            u32 state = 0xFFFFFFFFu;
            for (i64 at = max(bytes - (32 - lane) * part, 0LL); at < bytes - (31 - lane) * part; ++at) {
                state ^= (u32)(u16)own[at / 2] >> (8 * (at % 2)) & 255;
                for (int bit = 0; bit < 8; ++bit) state = state & 1 ? state >> 1 ^ POLYNOMIAL : state >> 1;
            }
            AT(crc) = ~state;
        }
        u32 power = crc_power(part);
        for (int apart = 1; apart < 32; apart *= 2) {
            PER_LANE(u32, behind);
            LANES AT(behind) = AT(crc);
            shift_down(behind, apart);
            LANES AT(crc) = crc_product(power, AT(crc)) ^ AT(behind);
            power = crc_product(power, power);
        }
        const u32 whole = broadcast(crc, 0);
        ONE_LANE crcs[row] = whole;
    }
}

// The steps in their order; all warps end one before any begins the next. 0 and 1 make Y, 2 and 3 what it is coded with,
// 4 hidden states.
FN void frames_step(const Frames &frames, i64 step, i64 warp, i64 warps) {
    DECLARE_LANE;
    for (i64 first = 32 * warp; first < frames.count * frames.width; first += 32 * warps) {
        LANES {
            const i64 index = first + lane;
            if (index < frames.count * frames.width) {
                switch (step) {
                case 0: in_steps(frames, index); break;
                case 1: nearest(frames, index); break;
                case 2: derive(frames, index); break;
                case 3: choose(frames, index); break;
                default: reconstruct(frames, index);
                }
            }
        }
    }
}
