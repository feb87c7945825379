//! What the tests of exact networks share.

use midspan::model::synthetic::SyntheticShape;
use proptest::prelude::*;

/// Any small shape.
pub fn shapes() -> impl Strategy<Value = SyntheticShape> {
    let widths = || prop::collection::vec(1usize..40, 1..4);
    (1usize..40, 1usize..12, widths(), widths(), 1usize..5, 1usize..40, 1usize..70).prop_map(
        |(hidden, hyper_prior, g_y, h, heads, window, scales)| SyntheticShape {
            hidden,
            hyper_prior,
            g_y,
            h,
            heads,
            window,
            qualities: 2,
            scales,
        },
    )
}
