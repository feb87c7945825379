// The kernels as a program for the CPU: for their tests, on machines without a device.
#include "entropy.h"
#include "frames.h"
#include "network.h"

extern "C" {

// The sizes of Layer, Block, Net, Row, Frame, Batch, Table, Part, Lane, Coding and Frames in bytes, with this compiler.
void midspan_kernels_sizes(i64 *sizes) {
    const i64 own[] = {sizeof(Layer), sizeof(Block), sizeof(Net), sizeof(Row), sizeof(Frame), sizeof(Batch),
                       sizeof(Table), sizeof(Part),  sizeof(Lane), sizeof(Coding), sizeof(Frames)};
    for (int i = 0; i < 11; ++i) sizes[i] = own[i];
}

// Runs a batch of frames phase by phase, in each phase with `warps` warps one after the other. If `order` is 1, the
// warps run backwards, because the warps of a phase must not depend on each other.
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

void midspan_kernels_pack(const Lane *lanes, i64 count, const u8 *bytes, u8 *packed, i64 warps) {
    for (i64 warp = 0; warp < warps; ++warp) pack(lanes, count, bytes, packed, warp, warps);
}

void midspan_kernels_frames(const Frames *frames, i64 step, i64 warps) {
    for (i64 warp = 0; warp < warps; ++warp) frames_step(*frames, step, warp, warps);
}

void midspan_kernels_digest(const i16 *values, i64 rows, i64 width, u32 *crcs, i64 warps) {
    for (i64 warp = 0; warp < warps; ++warp) digest(values, rows, width, crcs, warp, warps);
}
}
