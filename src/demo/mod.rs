//! The demo: upstreams without a model, for trying things out.
//!
//! | file | duty |
//! |---|---|
//! | `model` | the small server behind `sparkgap demo`: its answers, and the paced form of them |
//! | `rates` | the seconds that reading a prompt and writing a token take, fitted to published figures |
//! | `pace` | a box that takes these times, and remembers the prompts that it has read |
//! | `people` | made-up conversations for `sparkgap demo --busy` |

mod model;
mod pace;
mod people;
mod rates;

pub use model::{MODEL, start, start_box};
pub use people::begin;
pub use rates::{GPT_OSS_TOTALS, Rates};
