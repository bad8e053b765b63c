//! The speed of a box: that of the demo of the program.

pub use sparkgap::demo::Rates;
