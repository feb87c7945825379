//! The built program as a user runs it: files, links, bad input.

mod bench;
mod calibrate;
mod eval;
mod files;
mod fit;
mod generate;
mod learn;
mod limits;
mod outputs;
mod peer;
mod refusals;
mod selftest;
mod standard;
mod support;
mod terminal;
mod training;
mod warning;
