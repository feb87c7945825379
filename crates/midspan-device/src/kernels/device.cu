// The kernels that a device runs.
#include "entropy.h"
#include "frames.h"
#include "network.h"

// Waits until all blocks of the grid have arrived here for the `round`-th time. All blocks run at once (a cooperative
// launch). `arrived` is 0 at the launch.
FN void grid_barrier(u32 *arrived, u32 round) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (*(volatile u32 *)arrived < round * gridDim.x) {
        }
        __threadfence();
    }
    __syncthreads();
}

FN i64 warp_of_grid() { return blockIdx.x * (i64)(blockDim.x / 32) + threadIdx.x / 32; }

FN i64 warps_of_grid() { return gridDim.x * (i64)(blockDim.x / 32); }

// Runs a network's phases in one launch.
extern "C" __global__ void __launch_bounds__(256, 2) midspan_network(Batch batch) {
    const i64 warp = warp_of_grid(), warps = warps_of_grid(), count = phases(net_of(batch));
    for (i64 phase = 0; phase < count; ++phase) {
        if (phase > 0) grid_barrier(batch.arrived, (u32)phase);
        run_phase(batch, phase, warp, warps);
    }
}

extern "C" __global__ void midspan_encode(Coding coding) { encode(coding, warp_of_grid(), warps_of_grid()); }

extern "C" __global__ void midspan_decode(Coding coding) { decode(coding, warp_of_grid(), warps_of_grid()); }

extern "C" __global__ void midspan_pack(const Lane *lanes, i64 count, const u8 *bytes, u8 *packed) {
    pack(lanes, count, bytes, packed, warp_of_grid(), warps_of_grid());
}

extern "C" __global__ void midspan_frames(Frames frames, i64 step) {
    frames_step(frames, step, warp_of_grid(), warps_of_grid());
}

extern "C" __global__ void midspan_digest(const i16 *values, i64 rows, i64 width, u32 *crcs) {
    digest(values, rows, width, crcs, warp_of_grid(), warps_of_grid());
}
