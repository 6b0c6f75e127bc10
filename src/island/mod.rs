//! Sky Island's API: a request names a Git repository and a Go call, and gets what the call prints.

pub mod call;
mod literal;

pub use literal::Number;
