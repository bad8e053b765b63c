//! The bodies of calls, as tables of steps that `form` follows, and the readers of values in them.
//!
//! | module | reads |
//! |---|---|
//! | `steps` | the kinds of steps, and what a step keeps |
//! | `object` | a JSON object or array that is a call or several: `{"name":…,"arguments":…}` |
//! | `named` | a name, then its arguments as a JSON object |
//! | `tagged` | parameters in tags: `<parameter=k>v</parameter>`, `<parameter name="k">v</parameter>`, `<arg_key>` with `<arg_value>` |
//! | `python` | calls as Python writes them: `[f(a=1)]` |
//! | `value` | follows one JSON or Python value to its end |

mod named;
mod object;
mod python;
mod steps;
mod tagged;
mod value;

pub(super) use named::{HARMONY, MISTRAL, NAMED, SEPARATED, SEPARATED_FENCED, SEPARATED_TAG};
pub(super) use object::{ARRAY, CallKey, OBJECT, call_key};
pub(super) use python::{PYTHON, python_to_json};
pub(super) use steps::{END, Keep, Step};
pub(super) use tagged::{DSML, INVOKE, INVOKE_LINES, INVOKE_PREFIXED, PAIRS, PARAMETERS, STEP_INVOKE};
pub(super) use value::{ValueEvent, ValueReader};
