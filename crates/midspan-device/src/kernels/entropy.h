// The range coder (spec chapter 3): a warp codes one lane of a chunk. Its 32 threads ("lanes" of the warp) look up
// symbols in parallel. The coder's state is passed from symbol to symbol, and is the same in all threads.
#pragma once

#include "warp.h"

// A table: its values, and the place of c[0] = 0, c[1] ... c[size + 1] among the boundaries.
struct Table {
    i32 first, size, start, unused;
};

// Values of a lane: `count` from `first` on, in runs of `width`. If there are channels, the tables follow each other
// from `base` on, without shifts; otherwise every value has its own table and shift. `finish`: whether the payload ends
// after these values.
struct Part {
    i64 first, count, width, channels, base, finish;
};

// The state of a coder between symbols.
struct State {
    // The payload's offset among all bytes, and its length (when encoding: so far).
    i64 bytes, length;
    // The interval. When encoding: its lower end and its width. When decoding: the code's distance from the lower end,
    // and the width.
    u64 low, range;
    // Bytes read.
    i64 read;
    // 0, or the number of the refusal, plus 8 if it was in the second part.
    i64 error;
};

// One lane of a chunk.
struct Lane {
    State state;
    Part parts[2];
    // When encoding: how many values their tables do not hold.
    i64 escaped;
};

enum Refusal { CORRUPT = 1, OUT_OF_RANGE = 2, NOT_CANONICAL = 3 };

// Spec 3.5: how the values of a run are coded.
enum Mode { CODED, PLAIN, REPEAT };

// Lanes that are coded with the tables of one bank.
struct Coding {
    const Table *tables;
    const u16 *boundaries;
    u8 *bytes;
    Lane *lanes;
    i64 count;
    const u32 *own_tables;
    const i32 *shifts;
    i16 *values;
    i64 low, high;
    // Which part of the lanes is coded.
    i64 part;
};

// The sizes that `layout.rs` has, checked for every compiler.
static_assert(sizeof(Table) == 16 && sizeof(Part) == 48 && sizeof(Lane) == 152 && sizeof(Coding) == 88, "the coder's");

FN const Table &table_of(const Coding &coding, const Part &part, i64 symbol) {
    const i64 place = part.first + symbol;
    return coding.tables[part.channels > 0 ? part.base + symbol % part.channels : (i64)coding.own_tables[place]];
}

FN i64 shift_of(const Coding &coding, const Part &part, i64 symbol) {
    return part.channels > 0 ? 0 : coding.shifts[part.first + symbol];
}

// Adds one to the number that the first `length` bytes form.
FN void carry(u8 *bytes, i64 length) {
    while (length > 0 && ++bytes[--length] == 0) {
    }
}

// Narrows the interval to a symbol, and writes a word if the interval has become small.
FN void narrow(u8 *bytes, State &task, u32 left, u32 mass) {
    DECLARE_LANE;
    const u64 scale = task.range >> 16, low = task.low + scale * left;
    ONE_LANE {
        if (low < task.low) carry(bytes, task.length);
    }
    task.low = low;
    task.range = scale * mass;
    if (task.range < 1ULL << 48) {
        ONE_LANE {
            bytes[task.length] = (u8)(low >> 56);
            bytes[task.length + 1] = (u8)(low >> 48);
        }
        task.length += 2;
        task.low <<= 16;
        task.range <<= 16;
    }
}

#define HALF 32768u

// Spec 3.4: codes how far a value is outside its table.
FN void escape(u8 *bytes, State &task, u32 distance) {
    const u32 number = distance + 1;
    int below = 0;
    while (number >> (below + 1) > 0) ++below;
    for (int bit = 0; bit < below; ++bit) narrow(bytes, task, HALF, HALF);
    if (below < 15) narrow(bytes, task, 0, HALF);
    for (int bit = below - 1; bit >= 0; --bit) narrow(bytes, task, number >> bit & 1 ? HALF : 0, HALF);
}

// Spec 3.3: writes the number in the interval with the fewest bytes, and among these the smallest.
FN void seal(u8 *bytes, State &task) {
    DECLARE_LANE;
    for (int further = 0; further <= 2; ++further) {
        // The first multiple of 2^(64 - 8 further) at or above the lower end; 0 means 2^64, or 0 itself.
        const u64 unit = further == 0 ? 0 : 1ULL << (64 - 8 * further);
        const u64 number = further == 0 ? 0 : (task.low + (unit - 1)) & ~(unit - 1);
        if (number - task.low >= task.range) continue;
        ONE_LANE {
            if (number < task.low) carry(bytes, task.length);
            for (int byte = 0; byte < further; ++byte) bytes[task.length + byte] = (u8)(number >> (56 - 8 * byte));
        }
        task.length += further;
        break;
    }
    SYNC_WARP;
    while (task.length > 0 && bytes[task.length - 1] == 0) --task.length;
}

// The boundary c[i] of the table of a run's mode, after a run of the mode `last`.
FN u32 mode_boundary(int last, int i) {
    return i == 0 ? 0 : i == 3 ? 65536 : last == REPEAT ? (i == 1 ? 16384 : 16448) : (i == 1 ? 65504 : 65520);
}

// Bits of the width at the start of a plain run.
#define WIDTH_BITS 4

FN void write_mode(u8 *bytes, State &task, int last, int mode) {
    const u32 left = mode_boundary(last, mode);
    narrow(bytes, task, left, mode_boundary(last, mode + 1) - left);
}

// The number of bits that can hold each of these values with its sign.
FN int plain_width(const i16 *values, i64 count) {
    DECLARE_LANE;
    PER_LANE(i32, size);
    LANES {
        AT(size) = 0;
        // The bits of a value below those that repeat its sign.
        for (i64 i = lane; i < count; i += 32) AT(size) = max(AT(size), (i32)values[i] ^ ((i32)values[i] >> 15));
    }
    const i32 largest = warp_max(size);
    int width = 1;
    while (largest >> (width - 1) > 0) ++width;
    return width;
}

// Codes one of 2^bits equally likely numbers.
FN void write_number(u8 *bytes, State &task, u32 number, int bits) {
    narrow(bytes, task, number << (16 - bits), 65536u >> bits);
}

// Spec 3.5: codes a width, then the values as numbers of this many bits.
FN void write_plain(const i16 *values, i64 count, int width, u8 *bytes, State &task) {
    const int lower = min(width, 8), upper = width - lower;
    write_number(bytes, task, (u32)(width - 1), WIDTH_BITS);
    for (i64 i = 0; i < count; ++i) {
        const u32 number = (u32)values[i] & ((1u << width) - 1);
        if (upper > 0) write_number(bytes, task, number >> lower, upper);
        write_number(bytes, task, number & ((1u << lower) - 1), lower);
    }
}

// Whether a run's values equal those of the previous run.
FN bool repeats(const i16 *values, i64 width) {
    DECLARE_LANE;
    PER_LANE(bool, differs);
    LANES {
        AT(differs) = false;
        for (i64 i = lane; i < width; i += 32) AT(differs) |= values[i] != values[i - width];
    }
    return lanes_with(differs) == 0;
}

// The zero bits above a number's leading one; it has at least 48 bits.
FN int zeros_above(u64 number) {
    int zeros = 0;
    while (number >> (63 - zeros) == 0) ++zeros;
    return zeros;
}

// The bits that were coded since a mark, computed as in `LaneEncoder::bits_since`.
FN i64 bits_since(const State &task, const State &mark) {
    return 8 * (task.length - mark.length) + zeros_above(task.range) - zeros_above(mark.range);
}

// Takes back what was coded since a mark. `last` was the last byte before the mark; at most one carry has reached it
// since then, as explained at `LaneEncoder::rewind`.
FN void rewind(u8 *bytes, State &task, const State &mark, u8 last) {
    DECLARE_LANE;
    task = mark;
    ONE_LANE {
        i64 length = mark.length;
        if (length > 0 && bytes[length - 1] != last) {
            while (length > 0 && --bytes[--length] == 0xFF) {
            }
        }
    }
}

// The place of a value in its table: below 0 or from the table's size on if the table does not hold it.
FN i64 place_in(const Coding &coding, const Part &part, i64 symbol, const Table &table) {
    return coding.values[part.first + symbol] - shift_of(coding, part, symbol) - table.first;
}

// How many values of a run from symbol `start` on their tables do not hold.
FN i64 escaped(const Coding &coding, const Part &part, i64 start, i64 count) {
    DECLARE_LANE;
    PER_LANE(u32, own);
    LANES {
        AT(own) = 0;
        for (i64 symbol = start + lane; symbol < start + count; symbol += 32) {
            const Table &table = table_of(coding, part, symbol);
            const i64 place = place_in(coding, part, symbol, table);
            AT(own) += place < 0 || place >= table.size;
        }
    }
    return warp_sum(own);
}

// Codes the values of a run from symbol `start` on, each with its table. Returns how many the tables do not hold.
FN i64 encode_run(const Coding &coding, const Part &part, i64 start, i64 count, u8 *bytes, State &task) {
    DECLARE_LANE;
    PER_LANE(u32, own);
    LANES AT(own) = 0;
    for (i64 symbol0 = 0; symbol0 < count; symbol0 += 32) {
        PER_LANE(u32, left);
        PER_LANE(u32, mass);
        // One more than the distance outside the table, or 0 if the value is in the table.
        PER_LANE(u32, outside);
        LANES {
            AT(left) = AT(mass) = AT(outside) = 0;
            const i64 symbol = start + symbol0 + lane;
            if (symbol0 + lane < count) {
                const Table table = table_of(coding, part, symbol);
                const i64 place = place_in(coding, part, symbol, table);
                i64 entry = place + 1;
                if (place < 0) {
                    entry = 0;
                    AT(outside) = (u32)-place;
                } else if (place >= table.size) {
                    entry = table.size + 1;
                    AT(outside) = (u32)(place - table.size + 1);
                }
                const u16 *boundary = coding.boundaries + table.start + entry;
                AT(own) += AT(outside) > 0;
                AT(left) = boundary[0];
                AT(mass) = (entry > table.size ? 65536u : boundary[1]) - boundary[0];
            }
        }
        for (int i = 0; i < min(count - symbol0, 32LL); ++i) {
            narrow(bytes, task, broadcast(left, i), broadcast(mass, i));
            const u32 distance = broadcast(outside, i);
            if (distance > 0) escape(bytes, task, distance - 1);
        }
    }
    return warp_sum(own);
}

// Bits that a repeat costs after a run that is not a repeat, and bits that a plain run costs in addition to its values.
#define REPEAT_BITS 12
#define PLAIN_BITS 16

FN void encode_lane(const Coding &coding, i64 index) {
    DECLARE_LANE;
    State task = coding.lanes[index].state;
    const Part part = coding.lanes[index].parts[coding.part];
    u8 *bytes = coding.bytes + task.bytes;
    int last = CODED;
    i64 outside = 0;
    // The modes are chosen as in `RunEncoder`.
    for (i64 start = 0; start < part.count; start += part.width) {
        const i16 *values = coding.values + part.first + start;
        const bool again = start > 0 && repeats(values, part.width);
        int mode = REPEAT, width = 0;
        if (!again || last != REPEAT) {
            const State mark = task;
            u8 byte = 0;
            ONE_LANE {
                if (task.length > 0) byte = bytes[task.length - 1];
            }
            write_mode(bytes, task, last, CODED);
            outside += encode_run(coding, part, start, part.width, bytes, task);
            const i64 bits = bits_since(task, mark);
            mode = CODED;
            if (again && bits >= REPEAT_BITS) {
                mode = REPEAT;
            } else if (bits > part.width + PLAIN_BITS) {
                width = plain_width(values, part.width);
                if (bits > width * part.width + PLAIN_BITS) mode = PLAIN;
            }
            if (mode != CODED) rewind(bytes, task, mark, byte);
        } else {
            outside += escaped(coding, part, start, part.width);
        }
        if (mode != CODED) write_mode(bytes, task, last, mode);
        if (mode == PLAIN) write_plain(values, part.width, width, bytes, task);
        last = mode;
    }
    if (part.finish) seal(bytes, task);
    ONE_LANE {
        coding.lanes[index].state = task;
        coding.lanes[index].escaped += outside;
    }
}

// Continues with the part of the interval that contains the code, and reads a word if the part is small. After the end
// of the payload it reads zeros.
FN void take(const u8 *bytes, State &task, u64 low, u64 high) {
    task.low -= low;
    task.range = high - low;
    if (task.range < 1ULL << 48) {
        const u64 first = task.read < task.length ? bytes[task.read] : 0;
        const u64 second = task.read + 1 < task.length ? bytes[task.read + 1] : 0;
        task.read += 2;
        task.range <<= 16;
        task.low = task.low << 16 | first << 8 | second;
    }
}

// Decodes a bit of an escape. Returns 2 if the code is not valid.
FN u32 take_bit(const u8 *bytes, State &task) {
    const u64 half = (task.range >> 16) * HALF;
    if (task.low >= 2 * half) return 2;
    const u32 bit = task.low >= half;
    take(bytes, task, bit ? half : 0, bit ? 2 * half : half);
    return bit;
}

// Decodes an escape. Returns one more than the distance, or 0 if the code is not valid.
FN u32 take_escape(const u8 *bytes, State &task) {
    int below = 0;
    while (below < 15) {
        const u32 bit = take_bit(bytes, task);
        if (bit > 1) return 0;
        if (bit == 0) break;
        ++below;
    }
    u32 number = 1;
    for (; below > 0; --below) {
        const u32 bit = take_bit(bytes, task);
        if (bit > 1) return 0;
        number = number << 1 | bit;
    }
    return number;
}

// The symbol whose part of the interval contains the code: the number of boundaries c[1] ... c[size + 1] at or below
// the code.
FN i32 find(const u16 *boundaries, i32 size, u64 scale, u64 code) {
    DECLARE_LANE;
    const i32 last = size + 1, blocks = (last + 31) / 32;
    i32 block = 0;
    // Skip whole blocks of 32 boundaries below the code. Each step tests the last boundary of 32 blocks.
    while (blocks - block > 1) {
        PER_LANE(bool, below);
        LANES {
            const i32 end = 32 * (block + lane + 1);
            AT(below) = block + lane + 1 < blocks && scale * boundaries[min(end, last)] <= code;
        }
        const i32 count = lanes_with(below);
        block += count;
        if (count < 32) break;
    }
    PER_LANE(bool, below);
    LANES {
        const i32 place = 32 * block + lane + 1;
        AT(below) = place <= last && scale * boundaries[min(place, last)] <= code;
    }
    return 32 * block + lanes_with(below);
}

// Whether an encoder would have made the payload (spec 3.3).
FN bool canonical(const u8 *bytes, const State &task) {
    if (task.length == 0) return true;
    const u64 last = bytes[task.length - 1];
    const i64 behind = task.read - task.length;
    if (behind < 0 || last == 0) return false;
    if (behind >= 8) return true;
    // The sum does not overflow: at most 255 * 2^56 plus less than 2^56.
    const u64 unit = 1ULL << (8 * behind);
    return task.low < unit && unit * (256 - last) + task.low >= task.range;
}

// Loads the first 32 boundaries c[1] ... of a table, one in each thread, with 65536 after the last one.
#define LOAD_BOUNDS(bounds, table_start, table_size)                                                                   \
    do {                                                                                                               \
        const i64 begin = (table_start) + 1;                                                                           \
        const i32 last = (table_size);                                                                                 \
        LANES AT(bounds) = lane <= last ? coding.boundaries[begin + lane] : 65536u;                                    \
    } while (0)

// Decodes the mode of a run after a run of the mode `last`. Returns less than 0 if the code is not valid.
FN int take_mode(const u8 *bytes, State &task, int last) {
    const u64 scale = task.range >> 16;
    if (task.low >= scale << 16) return -1;
    int mode = CODED;
    while (task.low >= scale * mode_boundary(last, mode + 1)) ++mode;
    take(bytes, task, scale * mode_boundary(last, mode), scale * mode_boundary(last, mode + 1));
    return mode;
}

// Decodes one of 2^bits equally likely numbers. Returns 2^bits if the code is not valid.
FN u32 take_number(const u8 *bytes, State &task, int bits) {
    const u64 width = (task.range >> 16) << (16 - bits);
    const u64 number = task.low / width;
    if (number >> bits > 0) return 1u << bits;
    take(bytes, task, number * width, (number + 1) * width);
    return (u32)number;
}

// Decodes a plain run. Returns the number of the refusal, or 0.
FN int decode_plain(const Coding &coding, i64 first, i64 count, const u8 *bytes, State &task) {
    DECLARE_LANE;
    const u32 code = take_number(bytes, task, WIDTH_BITS);
    if (code >> WIDTH_BITS > 0) return CORRUPT;
    const int width = (int)code + 1, lower = min(width, 8), upper = width - lower;
    for (i64 i = 0; i < count; ++i) {
        const u32 above = upper > 0 ? take_number(bytes, task, upper) : 0;
        if (above >> upper > 0) return CORRUPT;
        const u32 below = take_number(bytes, task, lower);
        if (below >> lower > 0) return CORRUPT;
        const i32 number = (i32)(above << lower | below), value = number - (number >> (width - 1) << width);
        if (value < coding.low || value > coding.high) return OUT_OF_RANGE;
        ONE_LANE coding.values[first + i] = (i16)value;
    }
    return 0;
}

// Decodes the values of a run from symbol `start` on, each with its table. Returns the number of the refusal, or 0.
FN int decode_run(const Coding &coding, const Part &part, i64 start, i64 count, const u8 *bytes, State &task) {
    DECLARE_LANE;
    for (i64 symbol0 = 0; symbol0 < count; symbol0 += 32) {
        // The tables of 32 symbols are loaded in parallel, and the boundaries of the next symbol while one is decoded.
        PER_LANE(i32, firsts);
        PER_LANE(i32, sizes);
        PER_LANE(i32, starts);
        PER_LANE(i32, shifts);
        LANES {
            const i64 symbol = start + min(symbol0 + lane, count - 1);
            const Table table = table_of(coding, part, symbol);
            AT(firsts) = table.first;
            AT(sizes) = table.size;
            AT(starts) = table.start;
            AT(shifts) = (i32)shift_of(coding, part, symbol);
        }
        const int symbols = (int)min(count - symbol0, 32LL);
        PER_LANE(u32, ahead);
        LOAD_BOUNDS(ahead, broadcast(starts, 0), broadcast(sizes, 0));
        for (int i = 0; i < symbols; ++i) {
            const i32 first = broadcast(firsts, i), size = broadcast(sizes, i);
            PER_LANE(u32, bounds);
            LANES AT(bounds) = AT(ahead);
            if (i + 1 < symbols) LOAD_BOUNDS(ahead, broadcast(starts, i + 1), broadcast(sizes, i + 1));
            const u64 scale = task.range >> 16;
            if (task.low >= scale << 16) return CORRUPT;
            i32 entry;
            u64 left, right;
            if (size < 32) {
                PER_LANE(bool, below);
                LANES AT(below) = scale * AT(bounds) <= task.low;
                entry = lanes_with(below);
                left = entry > 0 ? broadcast(bounds, max(entry - 1, 0)) : 0;
                right = entry < 32 ? broadcast(bounds, min(entry, 31)) : 65536;
            } else {
                const u16 *boundaries = coding.boundaries + broadcast(starts, i);
                entry = find(boundaries, size, scale, task.low);
                left = boundaries[entry];
                right = entry > size ? 65536 : boundaries[entry + 1];
            }
            take(bytes, task, scale * left, scale * right);
            i64 value = (i64)first + entry - 1;
            if (entry == 0 || entry > size) {
                const i64 number = take_escape(bytes, task);
                if (number == 0) return CORRUPT;
                value = entry == 0 ? first - number : (i64)first + size + number - 1;
            }
            value += broadcast(shifts, i);
            if (value < coding.low || value > coding.high) return OUT_OF_RANGE;
            ONE_LANE coding.values[part.first + start + symbol0 + i] = (i16)value;
        }
    }
    return 0;
}

FN void decode_lane(const Coding &coding, i64 index) {
    DECLARE_LANE;
    State task = coding.lanes[index].state;
    const Part part = coding.lanes[index].parts[coding.part];
    const u8 *bytes = coding.bytes + task.bytes;
    int last = CODED;
    for (i64 start = 0; start < part.count && task.error == 0; start += part.width) {
        const i64 first = part.first + start;
        last = take_mode(bytes, task, last);
        int refusal = 0;
        if (last == CODED) {
            refusal = decode_run(coding, part, start, part.width, bytes, task);
        } else if (last == PLAIN) {
            refusal = decode_plain(coding, first, part.width, bytes, task);
        } else if (last < 0 || start == 0) {
            refusal = CORRUPT;
        } else {
            // The previous values may have been written by a single thread.
            SYNC_WARP;
            LANES {
                for (i64 i = lane; i < part.width; i += 32) coding.values[first + i] = coding.values[first + i - part.width];
            }
        }
        if (refusal > 0) task.error = 8 * coding.part + refusal;
    }
    if (task.error == 0 && part.finish && !canonical(bytes, task)) task.error = 8 * coding.part + NOT_CANONICAL;
    ONE_LANE coding.lanes[index].state = task;
}

FN void encode(const Coding &coding, i64 warp, i64 warps) {
    for (i64 index = warp; index < coding.count; index += warps) encode_lane(coding, index);
}

FN void decode(const Coding &coding, i64 warp, i64 warps) {
    for (i64 index = warp; index < coding.count; index += warps) decode_lane(coding, index);
}

// Copies the payloads of lanes together, one after the other.
FN void pack(const Lane *lanes, i64 count, const u8 *bytes, u8 *packed, i64 warp, i64 warps) {
    DECLARE_LANE;
    // A warp takes neighbouring lanes, and sums the lengths before them only once.
    const i64 share = (count + warps - 1) / warps, first = warp * share;
    if (first >= count) return;
    PER_LANE(u64, before);
    LANES {
        AT(before) = 0;
        for (i64 other = lane; other < first; other += 32) AT(before) += (u64)lanes[other].state.length;
    }
    i64 start = (i64)warp_sum(before);
    for (i64 index = first; index < min(first + share, count); ++index) {
        const i64 length = lanes[index].state.length;
        const u8 *from = bytes + lanes[index].state.bytes;
        LANES {
            for (i64 i = lane; i < length; i += 32) packed[start + i] = from[i];
        }
        start += length;
    }
}
