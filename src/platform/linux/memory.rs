//! How much memory is left.

use crate::fault::{Context, Fault, Kind, Result};

/// Bytes that programs can still have without swapping: `MemAvailable` (proc_meminfo(5)).
pub fn memory_available() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context(|| "cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes << 10)
        .ok_or_else(|| Fault::new(Kind::Unsupported, "/proc/meminfo does not say how much memory is available"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn some_memory_is_left_and_not_more_than_there_is() {
        let left = super::memory_available().unwrap();
        let info = rustix::system::sysinfo();
        let total = info.totalram as u64 * u64::from(info.mem_unit);
        assert!(left > 1 << 20 && left <= total, "{left} of {total}");
    }
}
