// The kernels as a program for the CPU: for their tests, on machines without a device.
#include "entropy.h"
#include "network.h"

extern "C" {

// Bytes of Layer, Block, Net, Row, Frame, Batch, Table, Lane and Coding, as this compiler lays them out.
void midspan_kernels_sizes(i64 *sizes) {
    const i64 own[] = {sizeof(Layer), sizeof(Block), sizeof(Net), sizeof(Row), sizeof(Frame), sizeof(Batch),
                       sizeof(Table), sizeof(Lane),  sizeof(Coding)};
    for (int i = 0; i < 9; ++i) sizes[i] = own[i];
}

// Runs a batch of frames with so many warps, one after the other, phase by phase; backwards if `order` is 1: warps of a
// phase must not depend on each other.
void midspan_kernels_network(const Batch *batch, i64 warps, i64 order) {
    for (i64 phase = 0; phase < phases(net_of(*batch)); ++phase) {
        for (i64 i = 0; i < warps; ++i) run_phase(*batch, phase, order ? warps - 1 - i : i, warps);
    }
}

void midspan_kernels_encode(const Coding *coding, i64 warps) {
    for (i64 warp = 0; warp < warps; ++warp) encode(*coding, warp, warps);
}

void midspan_kernels_decode(const Coding *coding, i64 warps) {
    for (i64 warp = 0; warp < warps; ++warp) decode(*coding, warp, warps);
}
}
