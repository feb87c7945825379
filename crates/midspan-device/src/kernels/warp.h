// Lets one source be a CUDA kernel and a C++ program: a warp is 32 lanes that run together in CUDA, and a loop over 32
// in C++. A value of each lane is declared with PER_LANE, accessed with AT, and used only inside LANES { ... }.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#ifdef __CUDACC__

#define FN static __device__ __forceinline__
#define DECLARE_LANE const int lane = threadIdx.x & 31
#define LANES
#define PER_LANE(type, name) type name
#define PER_LANE_ARRAY(type, name, size) type name[size]
#define AT(name) name
// After it, the other lanes of the warp see what a lane wrote to memory.
#define SYNC_WARP __syncwarp()
// For values that all lanes compute alike but only one may write.
#define ONE_LANE if (lane == 0)

FN u32 warp_sum(u32 value) {
    for (int mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(0xFFFFFFFFu, value, mask);
    return value;
}

FN u64 warp_sum(u64 value) {
    for (int mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(0xFFFFFFFFu, value, mask);
    return value;
}

FN i32 warp_max(i32 value) {
    for (int mask = 16; mask > 0; mask >>= 1) value = max(value, __shfl_xor_sync(0xFFFFFFFFu, value, mask));
    return value;
}

// Sums over the lanes whose numbers are equal modulo `width`, a power of two; every lane gets its sum.
FN void strided_sum(i64 &value, int width) {
    for (int mask = width; mask < 32; mask <<= 1) value += __shfl_xor_sync(0xFFFFFFFFu, value, mask);
}

// One lane's value, for all lanes.
template <typename T> FN T broadcast(T value, int from) { return __shfl_sync(0xFFFFFFFFu, value, from); }

// Every lane gets the value of the lane whose number is higher by `by`. The values of the last lanes are undefined.
template <typename T> FN void shift_down(T &value, int by) { value = __shfl_down_sync(0xFFFFFFFFu, value, by); }

// Operations that many warps do on one word, in any order.
FN void add_to(u32 *sum, u32 value) { atomicAdd(sum, value); }
FN void lower_to(u32 *least, u32 value) { atomicMin(least, value); }

// The number of lanes for which a condition holds.
FN int lanes_with(bool holds) { return __popc(__ballot_sync(0xFFFFFFFFu, holds)); }

FN i32 dot4(u32 a, u32 b, i32 sum) { return __dp4a((int)a, (int)b, sum); }

// One m16n8k32 product of signed bytes, with the fragments of PTX.
FN void product(i32 *c, const u32 *a, const u32 *b) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

struct alignas(16) Quad {
    u32 word[4];
};

FN Quad load(const i8 *at) {
    const uint4 v = *reinterpret_cast<const uint4 *>(at);
    return Quad{{v.x, v.y, v.z, v.w}};
}

#else

#include <cmath>
#include <cstring>

#define FN static inline
#define DECLARE_LANE
#define LANES for (int lane = 0; lane < 32; ++lane)
#define PER_LANE(type, name) type name[32]
#define PER_LANE_ARRAY(type, name, size) type name[32][size]
#define AT(name) name[lane]
#define SYNC_WARP
#define ONE_LANE

FN void add_to(u32 *sum, u32 value) { *sum += value; }
FN void lower_to(u32 *least, u32 value) { *least = *least < value ? *least : value; }

template <typename T> FN T min(T a, T b) { return a < b ? a : b; }
template <typename T> FN T max(T a, T b) { return a > b ? a : b; }

template <typename T> FN T warp_sum(const T (&value)[32]) {
    T sum = 0;
    LANES sum += value[lane];
    return sum;
}

FN i32 warp_max(const i32 (&value)[32]) {
    i32 largest = value[0];
    LANES largest = max(largest, value[lane]);
    return largest;
}

FN void strided_sum(i64 (&value)[32], int width) {
    for (int first = 0; first < width; ++first) {
        i64 sum = 0;
        for (int lane = first; lane < 32; lane += width) sum += value[lane];
        for (int lane = first; lane < 32; lane += width) value[lane] = sum;
    }
}

template <typename T> FN T broadcast(const T (&value)[32], int from) { return value[from]; }

template <typename T> FN void shift_down(T (&value)[32], int by) {
    for (int lane = 0; lane + by < 32; ++lane) value[lane] = value[lane + by];
}

FN int lanes_with(const bool (&holds)[32]) {
    int count = 0;
    LANES count += holds[lane];
    return count;
}

FN i32 signed_byte(u32 word, int at) { return (i8)(word >> (8 * at)); }

FN i32 dot4(u32 a, u32 b, i32 sum) {
    for (int at = 0; at < 4; ++at) sum += signed_byte(a, at) * signed_byte(b, at);
    return sum;
}

// PTX ISA, "Matrix fragments for mma.m16n8k32": which element of A, B and C is in which register of which lane.
template <int C, int A, int B> FN void product(i32 (&c)[32][C], int c0, const u32 (&a)[32][A], int a0, const u32 (&b)[32][B], int b0) {
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < 8; ++column) {
            i32 sum = 0;
            for (int k = 0; k < 32; ++k) {
                const int quarter = k % 16 / 4;
                const u32 left = a[row % 8 * 4 + quarter][a0 + row / 8 + 2 * (k / 16)];
                const u32 right = b[column * 4 + quarter][b0 + k / 16];
                sum += signed_byte(left, k % 4) * signed_byte(right, k % 4);
            }
            c[row % 8 * 4 + column / 2][c0 + row / 8 * 2 + column % 2] += sum;
        }
    }
}

struct Quad {
    u32 word[4];
};

FN Quad load(const i8 *at) {
    Quad quad;
    memcpy(&quad, at, sizeof quad);
    return quad;
}

#endif

#ifdef __CUDACC__
#define PRODUCT(c, c0, a, a0, b, b0) product(c + (c0), a + (a0), b + (b0))
#else
#define PRODUCT(c, c0, a, a0, b, b0) product(c, c0, a, a0, b, b0)
#endif
