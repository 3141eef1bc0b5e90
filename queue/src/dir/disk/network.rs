//! Whether a directory is on a file system that other machines change too. Notices of changes tell
//! only of those made on this machine, so there nobody may rely on being woken.

use std::path::Path;

/// File systems behind which other machines may be, by the numbers that `statfs(2)` names them by
/// (`linux/magic.h`).
const NETWORKS: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x517B, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
];

/// The kind of network file system that a directory is on. `None` on a local one, and where the
/// system does not say.
#[must_use]
pub fn network_of(dir: &Path) -> Option<&'static str> {
    kind(rustix::fs::statfs(dir).ok()?.f_type.cast_unsigned())
}

fn kind(number: u64) -> Option<&'static str> {
    // Some numbers have their highest bit set and come back negative.
    let number = number & 0xFFFF_FFFF;
    NETWORKS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        let (nfs, cifs, ext4) = (0x6969, 0xFFFF_FFFF_FF53_4D42, 0xEF53);
        assert_eq!([kind(nfs), kind(cifs), kind(ext4)], [Some("NFS"), Some("CIFS"), None]);
        assert_eq!(network_of(Path::new("/proc")), None);
    }
}
