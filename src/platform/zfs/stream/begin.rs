//! How a send stream begins (sys/zfs_ioctl.h, `dmu_replay_record_t` with `struct drr_begin`), to refuse what
//! `zfs receive` would do more with than make one filesystem.

use std::io::Read;

use crate::fault::{Context, Fault, Result};

/// Bytes of the first record.
const RECORD: usize = 312;

/// DMU_BACKUP_MAGIC, in the byte order of every machine that this runs on.
const MAGIC: u64 = 0x2_f5ba_cbac;

/// DMU_SUBSTREAM: one snapshot. The other, DMU_COMPOUNDSTREAM, can set properties and make many datasets.
const ONE_SNAPSHOT: u64 = 1;

/// DMU_OST_ZFS: of a filesystem, not of a volume.
const FILESYSTEM: u64 = 2;

/// Reads the first record of a stream and checks that it is of one snapshot of a filesystem, standing alone or
/// not as said. Returns the record, which belongs to the stream.
pub(super) fn check(stream: &mut dyn Read, full: bool) -> Result<[u8; RECORD]> {
    let mut record = [0; RECORD];
    stream.read_exact(&mut record).context(|| "the stream is too short")?;
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| record[at + i]));
    let short = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|i| record[at + i])));
    let (kind, payload, magic, version) = (short(0), short(4), long(8), long(16));
    let (object, from) = (short(32), long(48));
    let bad = |why: &str| Err(Fault::invalid(format!("the stream is refused: {why}")));
    if kind != 0 || magic != MAGIC {
        return bad("it is none of zfs send");
    }
    if version & 3 != ONE_SNAPSHOT {
        return bad("it is of more than one snapshot (zfs send -R or -p)");
    }
    // Raw, redacted and resumed streams have one.
    if payload != 0 {
        return bad("it is not a plain one (zfs send without options)");
    }
    if object != FILESYSTEM {
        return bad("it is not of a filesystem");
    }
    if (from == 0) != full {
        return bad("it does not begin where the archive says");
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first fields as zfs-fuse 0.7.0 wrote them for `zfs send -i zxa/layers/l1@layer zxa/layers/l2@layer`.
    fn recorded() -> Vec<u8> {
        let head = "0000000000000000accbbaf5020000000100000000000000c612016b00000000020000000100000086c8cd675e8943e4\
                    e7e1713ccc29fdf77a78612f6c61796572732f6c32406c61796572";
        let mut record = hex::decode(head).unwrap();
        record.resize(RECORD, 0);
        record
    }

    #[test]
    fn a_recorded_stream_is_accepted() {
        assert_eq!(check(&mut &recorded()[..], false).unwrap()[..], recorded());
        let mut full = recorded();
        full[48..56].fill(0);
        check(&mut &full[..], true).unwrap();
    }

    #[test]
    fn other_streams_are_refused() {
        let changes = [(0, 1), (4, 8), (8, 0), (16, 2), (32, 3)];
        for (at, value) in changes {
            let mut record = recorded();
            record[at] = value;
            assert!(check(&mut &record[..], false).is_err(), "byte {at} is {value}");
        }
        assert!(check(&mut &recorded()[..], true).is_err());
        assert!(check(&mut &recorded()[..RECORD - 1], false).is_err());
    }
}
