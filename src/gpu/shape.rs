//! What a context on a device has to know about its network.

/// Width and heads of each block, and the window.
pub(super) type Shape = (Vec<(usize, usize)>, usize);
