// The steps between hidden states and symbols (spec 6.2, 6.4, 6.7, 6.8). A warp processes 32 elements, or a frame.
#pragma once

#include "entropy.h"
#include "warp.h"

// A sparse map: the first entry of each channel's row, and one more; the entries.
struct Rows {
    const u32 *first;
    const u16 *index;
    const float *weight;
};

// Frames of one model, [count, width], and the results for them.
struct Frames {
    i64 count, width;
    // For each frame its hidden state, its quality, and its rate weight in squared steps a bit.
    const float *const *hidden;
    const i64 *quality;
    const float *weight;
    // [Q, width]
    const float *offset, *reciprocal_step, *step;
    // [width, width]; null without full maps.
    const float *analysis, *synthesis;
    // Null without sparse maps (spec 4.10).
    Rows sparse_analysis, sparse_synthesis;
    // [count, width]: r and e of spec 6.8, of the frames that are running through sparse maps.
    float *done, *errors;
    i64 low, high;
    // Hidden states in steps, and the values that are to pass through a map.
    float *x, *map_input;
    // The nearest integers or, when decoding, the decoded ones.
    i16 *y;
    // When encoding: for each frame, whether the previous frame is in the same lane; the integers that are sent; and
    // the cost of each by its table, in 1/256 bit.
    const u32 *follows;
    i16 *chosen;
    i32 *costs;
    // g_y's output, [count, 2 width]: means and scale indices. For each scale, its fraction bits and its first table.
    // The tables and shifts of all values.
    const i32 *output;
    const i32 *scales;
    u32 *tables;
    i32 *shifts;
    // The bank of Y's tables, and floor(256 log2(1 + i / 256)).
    const Table *bank;
    const u16 *boundaries;
    const u32 *logarithms;
    // The reconstructed hidden states.
    float *result;
    // First a word that is not 0 if a hidden state is not finite. Then for each frame the number of its values that
    // were clamped, and the first of them.
    u32 *faults;
};

// The size that `layout.rs` has, checked for every compiler.
static_assert(sizeof(Frames) == 280, "frames");

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

// The place of an element in arrays that have a row for each quality.
FN i64 by_quality(const Frames &frames, i64 index) {
    return frames.quality[index / frames.width] * frames.width + index % frames.width;
}

// An element of a frame after a map: 16 sums of every 16th product, then their sum, then the remaining products. The
// codec uses this order everywhere.
FN float mapped(const Frames &frames, const float *map, i64 index) {
    const i64 width = frames.width, whole = width / 16 * 16;
    const float *row = map + index % width * width, *frame = frames.map_input + index / width * width;
    float sums[16];
    for (int i = 0; i < 16; ++i) sums[i] = 0.0f;
    for (i64 at = 0; at < whole; at += 16) {
        for (int i = 0; i < 16; ++i) sums[i] = sum(sums[i], times(row[at + i], frame[at + i]));
    }
    float all = -0.0f, rest = -0.0f;
    for (int i = 0; i < 16; ++i) all = sum(all, sums[i]);
    for (i64 at = whole; at < width; ++at) rest = sum(rest, times(row[at], frame[at]));
    return sum(all, rest);
}

// The integer nearest to a value, with halves rounded to even.
FN i32 rounded(const Frames &frames, float x) {
    return (i32)fminf(fmaxf(rintf(x), (float)frames.low), (float)frames.high);
}

// Whether a value is more than half a step outside the range. The comparison is exact because both ends have 16 bits.
FN bool is_clipped(const Frames &frames, float x) {
    return x < difference((float)frames.low, 0.5f) || x > sum((float)frames.high, 0.5f);
}

// Spec 6.8: the nearest integers.
FN void nearest(const Frames &frames, i64 index) {
    const float x = frames.x[index];
    frames.y[index] = (i16)rounded(frames, x);
    if (is_clipped(frames, x)) {
        u32 *own = frames.faults + 1 + 2 * (index / frames.width);
        add_to(own, 1);
        lower_to(own + 1, (u32)(index % frames.width));
    }
}

// Spec 6.8: hidden states in steps, and the nearest integers. With a map, only the input of the map.
FN void quantise(const Frames &frames, i64 index) {
    const float value = frames.hidden[index / frames.width][index % frames.width];
    // An infinity minus itself is NaN, and so is a NaN minus itself.
    if (!(difference(value, value) == 0.0f)) *frames.faults = 1;
    const i64 own = by_quality(frames, index);
    const float centred = difference(value, frames.offset[own]);
    if (frames.analysis || frames.sparse_analysis.first) {
        frames.map_input[index] = centred;
    } else {
        frames.x[index] = times(centred, frames.reciprocal_step[own]);
        nearest(frames, index);
    }
}

// The same after a map.
FN void quantise_mapped(const Frames &frames, i64 index) {
    const float x = times(mapped(frames, frames.analysis, index), frames.reciprocal_step[by_quality(frames, index)]);
    // A sum of infinities with different signs.
    if (!(x == x)) *frames.faults = 1;
    frames.x[index] = x;
    nearest(frames, index);
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

// Spec 6.8: the cost of a value, in 1/256 bit.
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

// Spec 6.8: takes the second nearest integer if the bits that it saves are worth the distance. Returns the integer, and
// sets its cost.
FN i32 choice(const Frames &frames, i64 index, float x, i32 y, i32 &own) {
    const float weight = frames.weight[index / frames.width];
    const float distance = difference(x, (float)y), far = fabsf(distance);
    const i32 second = distance > 0.0f ? y + 1 : y - 1;
    own = cost(frames, index, y);
    if (weight > 0.0f && far <= 0.5f && second >= frames.low && second <= frames.high) {
        const i32 other = cost(frames, index, second);
        if (difference(1.0f, times(2.0f, far)) < times((float)(own - other), weight / 256.0f)) {
            own = other;
            return second;
        }
    }
    return y;
}

// The same for an element. `settle` may still change the frame.
FN void choose(const Frames &frames, i64 index) {
    i32 own;
    frames.chosen[index] = (i16)choice(frames, index, frames.x[index], frames.y[index], own);
    frames.costs[index] = own;
}

// The row sum of spec 4.10, by a warp: 16 lanes have a partial sum each.
FN float row_sum(const Rows &rows, i64 channel, const float *values) {
    DECLARE_LANE;
    const u32 first = rows.first[channel], end = rows.first[channel + 1];
    PER_LANE(float, sums);
    LANES {
        AT(sums) = 0.0f;
        if (lane < 16) {
            for (u32 entry = first + lane; entry < end; entry += 16) {
                AT(sums) = sum(AT(sums), times(rows.weight[entry], values[rows.index[entry]]));
            }
        }
    }
    for (int half = 8; half > 0; half /= 2) {
        PER_LANE(float, upper);
        LANES AT(upper) = AT(sums);
        shift_down(upper, half);
        LANES AT(sums) = sum(AT(sums), AT(upper));
    }
    return broadcast(sums, 0);
}

// Spec 6.8: one of a frame's two runs through sparse maps, by a warp. The first one gives x and the nearest integers,
// the second one chooses.
FN void run(const Frames &frames, i64 frame, bool chooses) {
    DECLARE_LANE;
    const i64 first = frame * frames.width;
    float *done = frames.done + first, *errors = frames.errors + first;
    for (i64 channel = 0; channel < frames.width; ++channel) {
        const i64 index = first + channel, own = by_quality(frames, index);
        const float predicted = row_sum(frames.sparse_synthesis, channel, done);
        const float target = sum(frames.map_input[index], row_sum(frames.sparse_analysis, channel, errors));
        const float x = times(difference(target, predicted), frames.reciprocal_step[own]);
        const bool finite = difference(x, x) == 0.0f, clipped = is_clipped(frames, x);
        i32 y = rounded(frames, x);
        if (chooses) {
            i32 cost;
            y = choice(frames, index, x, y, cost);
            ONE_LANE {
                frames.chosen[index] = (i16)y;
                // More than any plain run costs, so that `settle` goes back to the nearest integers.
                frames.costs[index] = finite && !clipped ? cost : 0x7FFFFFFF;
            }
        } else {
            ONE_LANE {
                frames.x[index] = x;
                if (!finite) *frames.faults = 1;
                nearest(frames, index);
            }
        }
        const float value = sum(predicted, times((float)y, frames.step[own]));
        ONE_LANE {
            done[channel] = value;
            errors[channel] = clipped ? 0.0f : difference(value, target);
        }
        SYNC_WARP;
    }
}

// Spec 6.7 behind a sparse map, by a warp.
FN void reconstruct_run(const Frames &frames, i64 frame) {
    DECLARE_LANE;
    const i64 first = frame * frames.width;
    for (i64 channel = 0; channel < frames.width; ++channel) {
        const i64 index = first + channel;
        const float value = sum(row_sum(frames.sparse_synthesis, channel, frames.done + first), frames.map_input[index]);
        ONE_LANE {
            frames.done[index] = value;
            frames.result[index] = sum(value, frames.offset[by_quality(frames, index)]);
        }
        SYNC_WARP;
    }
}

// Whether a frame's nearest integers are those of the previous frame in its lane.
FN bool is_like_before(const Frames &frames, i64 frame) {
    return frames.follows[frame] && repeats(frames.y + frame * frames.width, frames.width);
}

// Spec 6.8: goes back to the nearest integers if the run would be plain. The choice for a frame is then copied to the
// equal frames that follow it; for those this function does nothing.
FN void settle(const Frames &frames, i64 frame) {
    DECLARE_LANE;
    if (is_like_before(frames, frame)) return;
    const i64 width = frames.width, first = frame * width;
    const i16 *nearest = frames.y + first;
    i16 *chosen = frames.chosen + first;
    PER_LANE(u64, costs);
    LANES {
        AT(costs) = 0;
        for (i64 i = lane; i < width; i += 32) AT(costs) += (u64)frames.costs[first + i];
    }
    const u64 plain = (u64)(width * plain_width(nearest, width) + PLAIN_BITS);
    if (warp_sum(costs) >= 256 * plain) {
        LANES {
            for (i64 i = lane; i < width; i += 32) chosen[i] = nearest[i];
        }
    }
    for (i64 next = frame + 1; next < frames.count && is_like_before(frames, next); ++next) {
        LANES {
            for (i64 i = lane; i < width; i += 32) chosen[(next - frame) * width + i] = chosen[i];
        }
    }
}

// Spec 6.7: hidden states. With a map, only the input of the map.
FN void reconstruct(const Frames &frames, i64 index) {
    const i64 own = by_quality(frames, index);
    const float value = times((float)frames.y[index], frames.step[own]);
    if (frames.synthesis || frames.sparse_synthesis.first) {
        frames.map_input[index] = value;
    } else {
        frames.result[index] = sum(value, frames.offset[own]);
    }
}

// The same after a map.
FN void reconstruct_mapped(const Frames &frames, i64 index) {
    frames.result[index] = sum(mapped(frames, frames.synthesis, index), frames.offset[by_quality(frames, index)]);
}

#define POLYNOMIAL 0xEDB88320u

// The product of two polynomials modulo that of the crc, with reversed bits as in the crc.
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

// Spec 6.4: the crc of each row of 16-bit values. Each thread of a warp takes a part of a row. The parts have equal
// lengths, except the first ones.
FN void digest(const i16 *values, i64 rows, i64 width, u32 *crcs, i64 warp, i64 warps) {
    DECLARE_LANE;
    const i64 bytes = 2 * width, part = (bytes + 31) / 32;
    const u32 power_of_part = crc_power(part);
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
        u32 power = power_of_part;
        for (int distance = 1; distance < 32; distance *= 2) {
            PER_LANE(u32, behind);
            LANES AT(behind) = AT(crc);
            shift_down(behind, distance);
            LANES AT(crc) = crc_product(power, AT(crc)) ^ AT(behind);
            power = crc_product(power, power);
        }
        const u32 whole = broadcast(crc, 0);
        ONE_LANE crcs[row] = whole;
    }
}

// Steps that are done for all frames at once. All warps finish one step before any begins the next.
enum {
    QUANTISE,
    QUANTISE_MAPPED,
    DERIVE,
    DERIVE_AND_CHOOSE,
    SETTLE,
    RECONSTRUCT,
    RECONSTRUCT_MAPPED,
    // Behind sparse maps.
    QUANTISE_RUN,
    CHOOSE_RUN,
    RECONSTRUCT_RUN,
};

FN void frames_step(const Frames &frames, i64 step, i64 warp, i64 warps) {
    DECLARE_LANE;
    if (step == SETTLE || step >= QUANTISE_RUN) {
        for (i64 frame = warp; frame < frames.count; frame += warps) {
            switch (step) {
            case SETTLE: settle(frames, frame); break;
            case QUANTISE_RUN: run(frames, frame, false); break;
            case CHOOSE_RUN: run(frames, frame, true); break;
            default: reconstruct_run(frames, frame);
            }
        }
        return;
    }
    for (i64 first = 32 * warp; first < frames.count * frames.width; first += 32 * warps) {
        LANES {
            const i64 index = first + lane;
            if (index < frames.count * frames.width) {
                switch (step) {
                case QUANTISE: quantise(frames, index); break;
                case QUANTISE_MAPPED: quantise_mapped(frames, index); break;
                case DERIVE: derive(frames, index); break;
                case DERIVE_AND_CHOOSE:
                    derive(frames, index);
                    choose(frames, index);
                    break;
                case RECONSTRUCT: reconstruct(frames, index); break;
                default: reconstruct_mapped(frames, index);
                }
            }
        }
    }
}
