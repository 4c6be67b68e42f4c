//! File systems on this host's own disks, with their sizes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use datacentered_proto::ops::host::Disk;

use super::FactsConfig;
use super::text::bytes;
use crate::text::clean;

/// One line of mountinfo that is a file system on a disk.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    at: OsString,
    device_number: String,
    source: String,
    fs: String,
}

/// The file systems on disks, each once, in the order in which they were mounted.
///
/// Network file systems are left out on purpose: asking one whose server is gone for its size blocks for minutes.
pub(super) fn mounted(root: &Path, config: &FactsConfig) -> Vec<Disk> {
    let mut disks = Vec::new();
    for mount in mounts(&bytes(root, "/proc/self/mountinfo")) {
        if disks.len() >= config.max_disks {
            break;
        }
        let path = root.join(Path::new(&mount.at).strip_prefix("/").unwrap_or(Path::new(&mount.at)));
        // A file can be a mount point too (containers get /etc/hosts that way); it is no file system of its own.
        if !path.is_dir() {
            continue;
        }
        let Ok(size) = rustix::fs::statvfs(&path) else { continue };
        if size.f_blocks == 0 {
            continue;
        }
        disks.push(Disk {
            mount: clean(&mount.at.to_string_lossy(), config.max_text_bytes),
            device: clean(&mount.source, config.max_text_bytes),
            fs: clean(&mount.fs, config.max_text_bytes),
            total_bytes: size.f_blocks.saturating_mul(size.f_frsize),
            free_bytes: size.f_bavail.saturating_mul(size.f_frsize),
        });
    }
    disks
}

/// The disk mounts in a mountinfo, each device once at its shortest mount point, what is mounted over left out.
fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for mount in mountinfo.split(|byte| *byte == b'\n').filter_map(parse) {
        // A later mount at the same place hides the earlier one.
        found.retain(|other| other.at != mount.at);
        if !is_on_disk(&mount) {
            continue;
        }
        let same = |other: &&mut Mount| {
            other.device_number == mount.device_number
                || (other.source == mount.source && other.fs == mount.fs && other.source.starts_with('/'))
        };
        match found.iter_mut().find(same) {
            Some(other) if other.at.len() <= mount.at.len() => {}
            Some(other) => *other = mount,
            None => found.push(mount),
        }
    }
    found
}

/// What is read is bounded by what there was to read.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(mountinfo: &[u8]) {
    let length: usize = mounts(mountinfo).iter().map(|mount| mount.at.len()).sum();
    assert!(length <= mountinfo.len());
}

/// `36 35 98:0 /root /mount options shared:1 - ext4 /dev/root superoptions`, as proc(5) describes it.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let device_number = fields.nth(2)?;
    let at = fields.nth(1)?;
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    let (fs, source) = (behind.next()?, behind.next()?);
    Some(Mount {
        at: OsString::from_vec(unescape(at)),
        device_number: String::from_utf8_lossy(device_number).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
        fs: String::from_utf8_lossy(fs).into_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let octal = |digit: u8| (b'0'..=b'7').contains(&digit).then(|| u32::from(digit - b'0'));
        let escaped = match (byte, behind) {
            (b'\\', [a, b, c, ..]) => octal(*a)
                .zip(octal(*b))
                .zip(octal(*c))
                .and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok()),
            _ => None,
        };
        if let Some(value) = escaped {
            out.push(value);
            rest = behind.get(3..).unwrap_or_default();
        } else {
            out.push(byte);
            rest = behind;
        }
    }
    out
}

fn is_on_disk(mount: &Mount) -> bool {
    // Images that are mounted read-only through a loop device are packages and media, not disks.
    const IMAGES: [&str; 4] = ["squashfs", "iso9660", "udf", "erofs"];
    if IMAGES.contains(&mount.fs.as_str()) || !mount.at.as_bytes().starts_with(b"/") {
        return false;
    }
    // These name a pool or have a device number of their own, and are on disks all the same.
    if matches!(mount.fs.as_str(), "zfs" | "btrfs" | "bcachefs") {
        return true;
    }
    mount.source.starts_with("/dev/")
        && !mount.source.starts_with("/dev/loop")
        && mount.source != "/dev/fuse"
        && !mount.device_number.starts_with("0:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 254:0 /srv /mnt/bind rw,relatime - ext4 /dev/vda rw
29 27 254:16 / /srv/my\\040data rw,relatime master:2 - xfs /dev/vdb rw
30 27 7:1 / /snap/core rw - squashfs /dev/loop1 ro
31 27 0:50 / /nfs rw - nfs4 server:/export rw
32 27 0:51 / /pool rw - zfs tank/data rw
33 27 254:17 / /hidden rw - xfs /dev/vdc rw
34 27 0:60 / /hidden rw - tmpfs tmpfs rw
35 27 0:61 /a /vol rw - btrfs /dev/vdd rw
36 27 0:62 /b /v rw - btrfs /dev/vdd rw
";

    #[test]
    fn disks_are_told_once_and_nothing_else_is() {
        let found = mounts(MOUNTINFO.as_bytes());
        let seen: Vec<_> = found.iter().map(|m| (m.at.to_str().expect("text"), m.source.as_str())).collect();
        assert_eq!(
            seen,
            [("/", "/dev/vda"), ("/srv/my data", "/dev/vdb"), ("/pool", "tank/data"), ("/v", "/dev/vdd")]
        );
    }

    #[test]
    fn sizes_come_from_the_file_system_and_the_number_is_bounded() {
        let root = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(root.path().join("proc/self")).expect("creates");
        std::fs::create_dir_all(root.path().join("srv/my data")).expect("creates");
        std::fs::write(root.path().join("proc/self/mountinfo"), MOUNTINFO).expect("writes");
        let disks = mounted(root.path(), &FactsConfig::default());
        let seen: Vec<_> = disks.iter().map(|disk| disk.mount.as_str()).collect();
        assert_eq!(seen, ["/", "/srv/my data"], "mount points that do not exist are left out");
        assert!(disks.iter().all(|disk| disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes));
        let one = FactsConfig { max_disks: 1, ..FactsConfig::default() };
        assert_eq!(mounted(root.path(), &one).len(), 1);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = mounts(&bytes);
        }
    }
}
