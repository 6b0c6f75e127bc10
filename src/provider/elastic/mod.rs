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

mod line;
mod rules;
mod settings;

pub use line::Line;
pub use rules::Rules;
pub use settings::Settings;
