//! Examines a model: sets it short tasks as Claude Code would, and judges what a client of sparkgap gets.
//!
//! | file | duty |
//! |---|---|
//! | `tools` | the tools that the tasks offer |
//! | `task` | a task, and the answer that passes it: types only |
//! | `tasks` | the table of tasks |
//! | `judge` | from an answer to a verdict; pure |
//! | `ask` | asks one task of an upstream, through the translation that requests go through |
//! | `report` | the results of all tasks, and the advice that follows from them |
//! | `sitting` | the exam of one upstream, task by task |

mod ask;
mod judge;
mod report;
mod sitting;
mod task;
mod tasks;
mod tools;

pub use ask::ANSWER_TIME;
pub use report::{ExamReport, KindRow, TaskResult, TaskVerdict};
pub use sitting::{ExamPlan, sit_exam};
pub use tasks::TASK_COUNT;
