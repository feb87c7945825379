//! What a context on a device has to know of its network.

/// Width and heads of each block, and the window.
pub(super) type Shape = (Vec<(usize, usize)>, usize);
