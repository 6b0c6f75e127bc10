//! How many replicas a function has: from zero when it is called, to zero when it is idle, more and fewer with load.
//!
//! What a person asked for is in the spec file; what calls and load have made of it is [`super::Function::wanted`],
//! in memory only. After the daemon's death the replicas that still run say it: they are adopted.
//!
//! | file | what |
//! |---|---|
//! | [`rules`] | a function's labels and annotations, read |
//! | [`settings`] | `[elastic]` of the configuration |
//! | [`line`] | requests that wait for a replica |
//! | [`decide`] | how many replicas there should be: pure, with the table of decisions as its tests |
//! | [`pulse`], [`track`] | the loop: once a second, from the provider's own counters |
//! | [`freeze`] | idle replicas stopped in place |
//! | [`latency`], [`waits`] | what can be seen of all this from outside |
//! | [`reserve`] | starts that wait for each other and for memory |

mod decide;
mod freeze;
mod latency;
mod line;
mod pulse;
mod reserve;
mod rules;
mod settings;
mod track;
mod waits;

pub use decide::Decisions;
pub(super) use decide::{Step, Why};
pub use freeze::Frozen;
pub use latency::Latency;
pub use line::Line;
pub(super) use pulse::start;
pub(super) use reserve::Reclaim;
pub use rules::Rules;
pub use settings::Settings;
pub use waits::Waits;
