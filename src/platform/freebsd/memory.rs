//! How much memory is left.

use super::sysctl;
use crate::fault::{Fault, Kind, Result};

/// Pages that programs can have without anything being written out first: free ones, and those in the inactive
/// queue (vm(9), `vm.stats.vm`).
const PAGES: [&str; 2] = ["vm.stats.vm.v_free_count", "vm.stats.vm.v_inactive_count"];

/// Bytes that programs can still have without swapping.
pub fn memory_available() -> Result<u64> {
    let value = |name: &str| {
        let missing = || Fault::new(Kind::Unsupported, format!("this kernel has no {name}"));
        sysctl::integer(name).and_then(|value| u64::try_from(value).ok()).ok_or_else(missing)
    };
    let page = value("vm.stats.vm.v_page_size")?;
    PAGES.iter().try_fold(0, |sum, name| Ok(sum + value(name)? * page))
}
