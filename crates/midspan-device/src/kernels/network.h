// The exact network (spec chapter 5) for frames of many contexts, in phases. Every phase is a function of a warp's
// number and the number of warps. With n warps, a warp takes every n-th piece of work. A phase reads what the previous
// phase wrote, so all warps finish a phase before any begins the next. The only float is the estimate of a square root,
// which is then corrected.
#pragma once

// Written by the build script: the constants of chapter 5, as `midspan::model::network` has them.
#include "constants.h"
#include "warp.h"

// Descriptions of a network, in words of 64 bits as the host writes them. Offsets are in bytes from the model's first
// byte.

// Rows of weights, which are signed bytes, `stride` apart. After them follows a Row for each row.
struct Layer {
    i64 weight, scales, inputs, stride, rows;
};

struct Block {
    i64 width, next, heads, norm1, norm2, score, position, ring;
    Layer qkv, o, proj, up, down;
};

struct Net {
    i64 blocks, window, inputs, outputs, widest, mlp, exp, activation, input, norm, offset, bounds;
    Layer output;
    Block block[16];
};

struct Row {
    // `lift` is 128 times the sum of the weights, which compensates for low bytes being stored minus 128.
    i32 bias, lift, multiplier, shift;
};

struct Scale {
    i32 multiplier, shift;
};

// A frame to compute: the ring of its context's keys and values, its number in the context, its slot in the ring, the
// number of slots, its quality, and its row of the input and of the output.
struct Frame {
    u8 *ring;
    i64 position, slot, slots, quality, row;
};

// A batch of frames, and its working memory.
struct Batch {
    const u8 *model;
    const Frame *frames;
    i64 count;
    // The input of a row: first the values of `input`, then `sum_count` values of `sums`. Those of h and of a network
    // alone are all in `input`.
    const i16 *input, *sums;
    i64 sum_count;
    // The network's output, and the same in 16 bits if it fits. Either may be null.
    i32 *output;
    i16 *codes;
    // 0 at the launch.
    u32 *arrived;
    // [count, widest]
    i16 *x, *p, *q;
    // The planes of 16-bit values: high bytes, and low bytes minus 128. [count, widest] and, for the inputs of a
    // block's projection and last layer, [count, mlp]
    i8 *high, *low, *mlp_high, *mlp_low;
    // [warps, window]
    i32 *scores;
};

// The sizes that `layout.rs` has, checked for every compiler.
static_assert(sizeof(Layer) == 40 && sizeof(Block) == 264 && sizeof(Net) == 4360, "a network's description");
static_assert(sizeof(Row) == 16 && sizeof(Frame) == 48 && sizeof(Batch) == 136, "a batch");

FN const Net *net_of(const Batch &batch) { return (const Net *)batch.model; }

template <typename T> FN const T *at(const Batch &batch, i64 offset) { return (const T *)(batch.model + offset); }

FN i64 clamp(i64 x, i64 low, i64 high) { return min(max(x, low), high); }

FN i64 clamp16(i64 x) { return clamp(x, -ACTIVATION_MAX, ACTIVATION_MAX); }

// Spec 1.1; the spec's bounds keep the sum below 2^47.
FN i64 round_shift(i64 x, i32 shift) { return (x + (1LL << (shift - 1))) >> shift; }

FN void write_planes(i8 *high, i8 *low, i64 index, i64 x) {
    high[index] = (i8)(x >> 8);
    low[index] = (i8)((x & 255) - 128);
}

// Spec 5.5, step 1.
FN void begin(const Batch &batch, i64 warp, i64 warps) {
    DECLARE_LANE;
    const Net *net = net_of(batch);
    const i64 d = net->inputs, first_sum = d - batch.sum_count;
    for (i64 first = 32 * warp; first < batch.count * d; first += 32 * warps) {
        LANES {
            const i64 index = first + lane;
            if (index < batch.count * d) {
                const i64 place = index / d, i = index % d;
                const Frame &frame = batch.frames[place];
                const Scale scale = at<Scale>(batch, net->input)[frame.quality * d + i];
                const i64 in = i < first_sum ? batch.input[frame.row * first_sum + i]
                                             : batch.sums[frame.row * batch.sum_count + i - first_sum];
                batch.x[place * net->widest + i] = (i16)clamp16(round_shift(in * scale.multiplier, scale.shift));
            }
        }
    }
}

// The integer square root of x < 2^51: an estimate that is off by at most 1, then corrected.
FN i64 square_root(i64 x) {
    i64 root = (i64)sqrt((double)x);
    while (root * root > x) --root;
    while ((root + 1) * (root + 1) <= x) ++root;
    return root;
}

// Spec 5.2, [NET-2]: normalises rows of `from` and writes them as planes.
FN void norm(const Batch &batch, const i16 *from, i64 width, i64 numerator, i64 warp, i64 warps) {
    DECLARE_LANE;
    const Net *net = net_of(batch);
    for (i64 frame = warp; frame < batch.count; frame += warps) {
        const i16 *x = from + frame * net->widest;
        PER_LANE(u64, squares);
        LANES {
            AT(squares) = 0;
            for (i64 i = lane; i < width; i += 32) AT(squares) += (u64)((i64)x[i] * x[i]);
        }
        const i64 s = max(square_root((i64)(warp_sum(squares) << SQUARES_SHIFT)), 1LL);
        const i64 r = numerator / s;
        LANES {
            for (i64 i = lane; i < width; i += 32) {
                write_planes(batch.high, batch.low, frame * net->widest + i, clamp16(round_shift(x[i] * r, NORM_SHIFT)));
            }
        }
    }
}

// Writes rows as planes, without a norm.
FN void planes(const Batch &batch, const i16 *from, i64 width, i64 warp, i64 warps) {
    DECLARE_LANE;
    const Net *net = net_of(batch);
    for (i64 frame = warp; frame < batch.count; frame += warps) {
        LANES {
            for (i64 i = lane; i < width; i += 32) {
                const i64 index = frame * net->widest + i;
                write_planes(batch.high, batch.low, index, from[index]);
            }
        }
    }
}

// What is done with a layer's sums.
enum Sink { KEYS, ADD_O, PROJECT, ACTIVATE, ADD_DOWN, OUTPUT };

FN u8 *ring_of(const Frame &frame, const Block &block) { return frame.ring + block.ring * frame.slots; }

// Keys: for each head and each pair of neighbouring elements, a row of slots with two values in each. Values: after the
// keys, a row of `width` values for each slot.
FN i64 key_index(const Block &block, i64 slots, i32 element, i64 slot) {
    const i32 c = (i32)block.width / (i32)block.heads, pairs = (c + 1) / 2, head = element / c, i = element % c;
    return ((head * pairs + i / 2) * slots + slot) * 2 + i % 2;
}

FN i16 *values_of(const Block &block, i64 slots, u8 *ring) {
    const i64 c = block.width / block.heads, pairs = (c + 1) / 2;
    return (i16 *)(ring + block.heads * pairs * slots * 4);
}

// Takes the exact sum of row `i` for a frame (spec 5.4, 5.5).
template <Sink sink> FN void store(const Batch &batch, const Block &block, const Layer &layer, i64 frame, i64 i, i32 acc) {
    const Net *net = net_of(batch);
    const Row *rows = at<Row>(batch, layer.scales);
    const Frame &own = batch.frames[frame];
    const Row row = rows[sink == OUTPUT ? own.quality * layer.rows + i : i];
    const i64 y = round_shift((i64)acc * row.multiplier, row.shift);
    const i64 index = frame * net->widest + i;
    if (sink == KEYS) {
        const i16 value = (i16)clamp(y, -KEY_MAX, KEY_MAX);
        const i64 d = block.width, slot = own.slot;
        u8 *ring = ring_of(own, block);
        if (i < d) {
            batch.q[frame * net->widest + i] = value;
        } else if (i < 2 * d) {
            ((i16 *)ring)[key_index(block, own.slots, (i32)(i - d), slot)] = value;
        } else {
            values_of(block, own.slots, ring)[slot * d + i - 2 * d] = value;
        }
    } else if (sink == ADD_O) {
        const i64 x = clamp16(batch.x[index] + clamp16(y));
        batch.x[index] = (i16)x;
        // The projection's input has its own planes, because the other planes are still being read.
        write_planes(batch.mlp_high, batch.mlp_low, frame * net->mlp + i, x);
    } else if (sink == PROJECT) {
        batch.p[index] = (i16)clamp16(y);
    } else if (sink == ACTIVATE) {
        const i16 g = at<i16>(batch, net->activation)[clamp(y, PRE_ACTIVATION_MIN, PRE_ACTIVATION_MAX) - PRE_ACTIVATION_MIN];
        write_planes(batch.mlp_high, batch.mlp_low, frame * net->mlp + i, g);
    } else if (sink == ADD_DOWN) {
        batch.x[index] = (i16)clamp16(batch.p[index] + clamp16(y));
    } else {
        const i32 *bounds = at<i32>(batch, net->bounds) + 2 * i;
        const i64 value = y + at<i32>(batch, net->offset)[own.quality * layer.rows + i];
        const i64 place = own.row * layer.rows + i;
        const i32 output = (i32)clamp(value, bounds[0], bounds[1]);
        if (batch.output) batch.output[place] = output;
        if (batch.codes) batch.codes[place] = (i16)output;
    }
}

// The sum of both planes' products. The result is below 2^31, even if intermediate values wrap around.
FN i32 whole(const Row &row, u32 high, u32 low) { return (i32)(256u * high + low + (u32)row.lift + (u32)row.bias); }

FN const Row &own_row(const Batch &batch, const Layer &layer, i64 i) { return at<Row>(batch, layer.scales)[i]; }

// Frames that share a pass over a row of weights.
#define FEW 8

// Spec 5.1 for few frames: a warp takes a row of weights.
template <Sink sink>
FN void linear_few(const Batch &batch, const Block &block, const Layer &layer, const i8 *x_high, const i8 *x_low, i64 stride, i64 warp, i64 warps) {
    DECLARE_LANE;
    for (i64 i = warp; i < layer.rows; i += warps) {
        const i8 *weights = at<i8>(batch, layer.weight) + i * layer.stride;
        PER_LANE_ARRAY(u32, high, FEW);
        PER_LANE_ARRAY(u32, low, FEW);
        LANES {
            for (int f = 0; f < FEW; ++f) AT(high)[f] = AT(low)[f] = 0;
            for (i64 k = 16 * lane; k < layer.stride; k += 512) {
                const Quad w = load(weights + k);
                for (int f = 0; f < FEW; ++f) {
                    if (f >= batch.count) break;
                    const Quad h = load(x_high + f * stride + k), l = load(x_low + f * stride + k);
                    for (int word = 0; word < 4; ++word) {
                        AT(high)[f] = (u32)dot4(w.word[word], h.word[word], (i32)AT(high)[f]);
                        AT(low)[f] = (u32)dot4(w.word[word], l.word[word], (i32)AT(low)[f]);
                    }
                }
            }
        }
        for (int f = 0; f < FEW; ++f) {
            if (f >= batch.count) break;
            PER_LANE(u32, h);
            PER_LANE(u32, l);
            LANES {
                AT(h) = AT(high)[f];
                AT(l) = AT(low)[f];
            }
            const u32 sum_high = warp_sum(h), sum_low = warp_sum(l);
            LANES {
                if (lane == f) store<sink>(batch, block, layer, f, i, whole(own_row(batch, layer, i), sum_high, sum_low));
            }
        }
    }
}

// Tiles of 8 rows of weights that a warp takes at once.
#define TILES 4

// Spec 5.1 for many frames: a warp takes 16 frames and 8 · TILES rows of weights.
template <Sink sink>
FN void linear_many(const Batch &batch, const Block &block, const Layer &layer, const i8 *x_high, const i8 *x_low, i64 stride, i64 warp, i64 warps) {
    DECLARE_LANE;
    const i64 across = (layer.rows + 8 * TILES - 1) / (8 * TILES), down = (batch.count + 15) / 16;
    for (i64 piece = warp; piece < across * down; piece += warps) {
        const i64 frame0 = piece / across * 16, row0 = piece % across * (8 * TILES);
        PER_LANE_ARRAY(i32, high, 4 * TILES);
        PER_LANE_ARRAY(i32, low, 4 * TILES);
        PER_LANE_ARRAY(u32, a_high, 8);
        PER_LANE_ARRAY(u32, a_low, 8);
        PER_LANE_ARRAY(u32, b, 4 * TILES);
        LANES {
            for (int e = 0; e < 4 * TILES; ++e) AT(high)[e] = AT(low)[e] = 0;
        }
        // A thread's 16 bytes are its share of two products of 32 inputs. The order of the inputs in a product does not
        // matter, as long as it is the same on both sides.
        for (i64 k0 = 0; k0 < layer.stride; k0 += 64) {
            LANES {
                const i64 group = lane / 4, k = k0 + 16 * (lane % 4);
                for (int half = 0; half < 2; ++half) {
                    // Frames after the last are read as the last frame, and their sums are ignored.
                    const i64 frame = min(frame0 + group + 8 * half, batch.count - 1);
                    const Quad h = load(x_high + frame * stride + k), l = load(x_low + frame * stride + k);
                    for (int word = 0; word < 4; ++word) {
                        // Registers of a product: the first and the second frame, then both again with later inputs.
                        const int to = word / 2 * 4 + word % 2 * 2 + half;
                        AT(a_high)[to] = h.word[word];
                        AT(a_low)[to] = l.word[word];
                    }
                }
                for (int tile = 0; tile < TILES; ++tile) {
                    const i64 row = min(row0 + 8 * tile + group, layer.rows - 1);
                    const Quad w = load(at<i8>(batch, layer.weight) + row * layer.stride + k);
                    for (int word = 0; word < 4; ++word) AT(b)[4 * tile + word] = w.word[word];
                }
            }
            for (int part = 0; part < 2; ++part) {
                for (int tile = 0; tile < TILES; ++tile) {
                    PRODUCT(high, 4 * tile, a_high, 4 * part, b, 4 * tile + 2 * part);
                    PRODUCT(low, 4 * tile, a_low, 4 * part, b, 4 * tile + 2 * part);
                }
            }
        }
        LANES {
            for (int e = 0; e < 4 * TILES; ++e) {
                const i64 frame = frame0 + lane / 4 + e % 4 / 2 * 8, i = row0 + e / 4 * 8 + lane % 4 * 2 + e % 2;
                if (frame < batch.count && i < layer.rows) {
                    const i32 acc = whole(own_row(batch, layer, i), (u32)AT(high)[e], (u32)AT(low)[e]);
                    store<sink>(batch, block, layer, frame, i, acc);
                }
            }
        }
    }
}

template <Sink sink>
FN void linear(const Batch &batch, const Block &block, const Layer &layer, i64 warp, i64 warps) {
    const Net *net = net_of(batch);
    const bool mlp = sink == ADD_DOWN || sink == PROJECT;
    const i8 *high = mlp ? batch.mlp_high : batch.high, *low = mlp ? batch.mlp_low : batch.low;
    const i64 stride = mlp ? net->mlp : net->widest;
    if (batch.count <= FEW) {
        linear_few<sink>(batch, block, layer, high, low, stride, warp, warps);
    } else {
        linear_many<sink>(batch, block, layer, high, low, stride, warp, warps);
    }
}

// Spec 5.3, steps 2 to 5, [NET-3]: a warp processes one head of a frame.
FN void attention(const Batch &batch, const Block &block, i64 warp, i64 warps) {
    DECLARE_LANE;
    const Net *net = net_of(batch);
    const i64 d = block.width, c = d / block.heads, pairs = (c + 1) / 2;
    i32 *z = batch.scores + warp * net->window;
    // Number of threads that share an element of the head's output.
    i32 width = 1;
    while (width < 32 && width < c) width *= 2;
    for (i64 piece = warp; piece < batch.count * block.heads; piece += warps) {
        const i64 frame = piece / block.heads, head = piece % block.heads;
        const Frame &own = batch.frames[frame];
        const i64 slots = own.slots, seen = min(own.position + 1, net->window);
        // The slot of the first frame that is seen.
        const i64 back = own.slot - (seen - 1), start = back < 0 ? back + slots : back;
        u8 *ring = ring_of(own, block);
        const i16 *q = batch.q + frame * net->widest + head * c, *keys = (const i16 *)ring;
        const i16 *values = values_of(block, slots, ring) + head * c;
        const Scale scale = at<Scale>(batch, block.score)[head];
        const i32 *position = at<i32>(batch, block.position) + head * net->window;
        PER_LANE(i32, largest);
        LANES {
            AT(largest) = -(1 << 30);
            for (i64 u = lane; u < seen; u += 32) {
                const i64 slot = start + u < slots ? start + u : start + u - slots;
                i32 dot = 0;
                for (i64 i = 0; i < c; ++i) dot += q[i] * keys[((head * pairs + i / 2) * slots + slot) * 2 + i % 2];
                const i64 score = clamp(round_shift((i64)dot * scale.multiplier, scale.shift), -WIDE_MAX, WIDE_MAX);
                z[u] = (i32)score + position[seen - 1 - u];
                AT(largest) = max(AT(largest), z[u]);
            }
        }
        const i32 top = warp_max(largest);
        PER_LANE(u32, weight);
        LANES {
            AT(weight) = 0;
            for (i64 u = lane; u < seen; u += 32) {
                z[u] = at<u16>(batch, net->exp)[min(top - z[u], EXP_LEN - 1)];
                AT(weight) += (u32)z[u];
            }
        }
        const i64 r = (1LL << ATTENTION_SHIFT) / warp_sum(weight);
        SYNC_WARP;
        for (i64 i0 = 0; i0 < c; i0 += width) {
            PER_LANE(i64, o);
            LANES {
                const i64 i = i0 + lane % width;
                AT(o) = 0;
                for (i64 u = lane / width; u < seen && i < c; u += 32 / width) {
                    const i64 slot = start + u < slots ? start + u : start + u - slots;
                    AT(o) += (i64)z[u] * values[slot * d + i];
                }
            }
            strided_sum(o, width);
            LANES {
                const i64 i = i0 + lane;
                if (lane < width && i < c) {
                    write_planes(batch.high, batch.low, frame * net->widest + head * c + i, round_shift(AT(o) * r, ATTENTION_SHIFT));
                }
            }
        }
        SYNC_WARP;
    }
}

// A network's phases: one for the input, eight for each block, two for the output.
FN i64 phases(const Net *net) { return 3 + 8 * net->blocks; }

FN void run_phase(const Batch &batch, i64 phase, i64 warp, i64 warps) {
    const Net *net = net_of(batch);
    const i64 inner = phase - 1;
    if (phase == 0) return begin(batch, warp, warps);
    if (inner == 8 * net->blocks) {
        if (net->norm > 0) return norm(batch, batch.x, net->output.inputs, net->norm, warp, warps);
        return planes(batch, batch.x, net->output.inputs, warp, warps);
    }
    if (inner > 8 * net->blocks) return linear<OUTPUT>(batch, net->block[0], net->output, warp, warps);
    const Block &block = net->block[inner / 8];
    switch (inner % 8) {
    case 0: return norm(batch, batch.x, block.width, block.norm1, warp, warps);
    case 1: return linear<KEYS>(batch, block, block.qkv, warp, warps);
    case 2: return attention(batch, block, warp, warps);
    case 3: return linear<ADD_O>(batch, block, block.o, warp, warps);
    case 4: return linear<PROJECT>(batch, block, block.proj, warp, warps);
    case 5: return norm(batch, batch.p, block.next, block.norm2, warp, warps);
    case 6: return linear<ACTIVATE>(batch, block, block.up, warp, warps);
    default: return linear<ADD_DOWN>(batch, block, block.down, warp, warps);
    }
}
