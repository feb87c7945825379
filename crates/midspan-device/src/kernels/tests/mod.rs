//! Tests of the kernels, compiled for the CPU, against the codec's own code.

mod entropy;
mod frames;
mod network;
mod sessions;

use super::layout::{BLOCK_WORDS, Batch, Coding, Frame, Frames, LAYER_WORDS, Lane, NET_WORDS, Part, Table};

unsafe extern "C" {
    fn midspan_kernels_sizes(sizes: *mut i64);
}

#[test]
fn structures_are_those_of_the_sources() {
    let mut sizes = [0; 11];
    // SAFETY: eleven sizes are written.
    unsafe { midspan_kernels_sizes(sizes.as_mut_ptr()) };
    let words = [LAYER_WORDS, BLOCK_WORDS, NET_WORDS].map(|words| 8 * words);
    let network = [16, size_of::<Frame>(), size_of::<Batch>()];
    let coder = [size_of::<Table>(), size_of::<Part>(), size_of::<Lane>(), size_of::<Coding>()];
    let expected = [&words[..], &network, &coder, &[size_of::<Frames>()]].concat();
    assert_eq!(sizes.map(|size| size as usize), expected[..]);
}
