// The kernels that a device runs.
#include "network.h"

// Waits until all blocks of the grid have come here for the `round`-th time, which all run at once (a cooperative launch).
// `arrived` is 0 at the launch.
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

// A network's phases in one launch.
extern "C" __global__ void midspan_network(Batch batch, u32 *arrived) {
    const i64 in_block = blockDim.x / 32;
    const i64 warp = blockIdx.x * in_block + threadIdx.x / 32, warps = gridDim.x * in_block;
    const i64 count = phases(net_of(batch));
    for (i64 phase = 0; phase < count; ++phase) {
        if (phase > 0) grid_barrier(arrived, (u32)phase);
        run_phase(batch, phase, warp, warps);
    }
}
