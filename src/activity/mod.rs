//! The activity of the server, now and since the start: one record a request, the requests in progress, the numbers.
//!
//! | file | duty |
//! |---|---|
//! | `shared` | [`Activity`]: registry and counters as one value |
//! | `in_flight` | [`InFlight`]: the requests in progress, for whoever wants to read them |
//! | `counters` | [`Counters`]: the numbers since the start |
//! | `changes` | [`BehaviorChanges`]: calls found in text, and loops |
//! | `metrics` | [`Metrics`]: histograms and counters for Prometheus |
//! | `prefixes` | [`Prefixes`]: the last turns of conversations, and whether the next one lost their prefix |
//! | `phase` | [`Phase`]: the phases of a request |
//! | `times` | [`PhaseTimes`]: when a request reached which phase |
//! | `history` | [`RequestHistory`]: the records of the last requests, bounded |
//! | `refusals` | [`RefusalLog`]: the lines of refused requests, and the number of those left out |
//! | `tap` | [`Tap`]: notes the bytes of one request at five places, with their times |
//! | `redact` | takes keys and images out of recorded bytes |
//! | `named` | finds keys by the names of their members, variables and fields of forms |
//! | `request_keys` | [`RequestKeys`]: the keys of one request, and texts about it without them |
//! | `steps` | [`RecordedStep`]: the steps of a recording, read again |
//! | `difference` | the difference of two recorded bodies, as lines for a person |
//! | `recorder` | [`Recorder`]: decides which requests are recorded, and makes a recording fit for the disk |
//! | `record` | [`Record`]: the line in the log, and the same as JSON |
//!
//! `/health`, the log line, `on_log` and systemd's status line read these values; they do not count for themselves.

mod changes;
mod counters;
mod difference;
mod history;
mod in_flight;
mod metrics;
mod named;
mod phase;
mod prefixes;
mod record;
mod recorder;
mod redact;
mod refusals;
mod request_keys;
mod shared;
mod steps;
mod tap;
mod times;

pub use changes::BehaviorChanges;
pub use counters::Counters;
pub use difference::body_difference;
pub use history::{FinishedRequest, RequestHistory};
pub use in_flight::{ActiveRequest, InFlight, InFlightSlot, Streaming};
pub use metrics::{ClientTotals, Histogram, Metrics, OTHER, RequestLabels, RequestOutcome, UpstreamMetrics};
pub use phase::Phase;
pub use prefixes::{OpenTurn, Prefixes};
pub use record::{CLIENT_GONE, Caller, Placed, Record, RequestDetails, kept_name};
pub use recorder::{CleanRecording, RecordMode, RecordOptions, Recorder};
pub use redact::hide_keys;
pub use refusals::RefusalLog;
pub use request_keys::RequestKeys;
pub use shared::Activity;
pub use steps::{RecordedStep, read_steps};
pub use tap::{PLACES, RECORDING_SIZE_MAX, Recording, RecordingMemory, StepKind, Tap};
pub use times::{Moment, PhaseTimes};
