//! Learns hosts and codec models in float, freezes them to integers, fits codecs to fixed hosts, and measures all of them.

#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod base;
pub mod calibrate;
pub mod checkpoint;
pub mod codec;
pub mod data;
pub mod dial;
pub mod divergence;
mod error;
pub mod fit;
pub mod framing;
pub mod freeze;
pub mod gradient;
pub mod joint;
pub mod log;
pub mod loss;
pub mod measure;
pub mod optim;
pub mod parallel;
pub mod prune;
pub mod recipes;
pub mod rng;
pub mod runner;
pub mod samples;
pub mod schedule;
pub mod trade;
pub mod watch;
pub mod widen;

pub use error::{Error, FileFault, Result, context};
