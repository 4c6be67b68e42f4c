//! Files below a root: what is planted is not followed, what fails leaves the place as it was, what is cut off goes on.

mod files {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;

    use datacentered_agent_lib::files::hash::{Hasher, hex};
    use datacentered_agent_lib::files::{self as library, Held, Part, Placer, Relative, Source};
    use datacentered_proto::ops::file::{Attributes, Entry, EntryKind, FileTime, Placed, Placing, fault};
    use datacentered_proto::{ByteString, Error, OperationKey};

    const PART: &str = "0123456789abcdef";

    fn path(text: &str) -> Relative {
        Relative::parse(&text.into()).expect("a path")
    }

    fn sha256(bytes: &[u8]) -> String {
        let mut hash = Hasher::new();
        hash.update(bytes);
        hex(&hash.finish())
    }

    fn key() -> OperationKey {
        "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f".parse().expect("a key")
    }

    fn attributes(mode: u32) -> Attributes {
        Attributes { mode, ..Attributes::default() }
    }

    fn file(bytes: &[u8], attributes: Attributes) -> Placing {
        let (part, sha256) = (PART.to_owned(), sha256(bytes));
        Placing::File { part, transfer: key(), size: bytes.len() as u64, sha256, attributes }
    }

    fn place(root: &Path, at: &str, placing: &Placing, held: Option<Held>) -> Placed {
        let mut placer = Placer::open(root).expect("a root");
        let placed = placer.place(&path(at), placing, held);
        placer.finish().expect("synced");
        placed
    }

    /// Writes a whole file, in pieces.
    fn write(root: &Path, at: &str, bytes: &[u8]) -> Result<Held, Error> {
        let mut part = Part::open(root, &path(at), PART, bytes.len() as u64, true)?;
        for piece in bytes.chunks(1000) {
            part.write(part.held(), piece).inspect_err(|_| part.remove())?;
        }
        Ok(Held { size: part.held(), digest: part.finish()? })
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn fault_of(error: &Error) -> &str {
        error.file_fault().unwrap_or_else(|| panic!("no fault in {error:?}"))
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole_and_then_everything_it_should_have() {
        let root = tempfile::tempdir().expect("a directory");
        let content = vec![7u8; 2500];
        fs::write(root.path().join("f"), "old").expect("written");
        fs::set_permissions(root.path().join("f"), fs::Permissions::from_mode(0o640)).expect("mode");
        let held = write(root.path(), "f", &content).expect("written");
        assert_eq!(fs::read(root.path().join("f")).expect("reads"), b"old");
        assert_eq!(names(root.path()).len(), 2);

        let mtime = FileTime { s: 1_000_000_000, ns: 123_456_789 };
        let wanted =
            Attributes { mode: 0o751, mtime: Some(mtime), atime: Some(mtime), ..Attributes::default() };
        let placed = place(root.path(), "f", &file(&content, wanted), Some(held));
        assert_eq!(placed, Placed { made: false, error: None });
        assert_eq!(names(root.path()), ["f"]);
        assert_eq!(fs::read(root.path().join("f")).expect("reads"), content);
        let now = fs::metadata(root.path().join("f")).expect("there");
        assert_eq!((now.mode() & 0o7777, now.mtime(), now.mtime_nsec()), (0o751, mtime.s, 123_456_789));

        // The reply was lost: the same again is done already.
        let again = place(root.path(), "f", &file(&content, wanted), None);
        assert_eq!(again, Placed { made: false, error: None });
        // A file that is replaced keeps its permissions where that is asked for.
        let held = write(root.path(), "f", b"new").expect("written");
        let keep = Attributes { mode: 0o777, keep_existing: true, ..Attributes::default() };
        assert_eq!(place(root.path(), "f", &file(b"new", keep), Some(held)).error, None);
        assert_eq!(fs::metadata(root.path().join("f")).expect("there").mode() & 0o7777, 0o751);
    }

    #[test]
    fn damaged_bytes_are_never_put_in_place() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("f"), "old").expect("written");
        write(root.path(), "f", b"damaged").expect("written");
        let error =
            place(root.path(), "f", &file(b"as sent", attributes(0o644)), None).error.expect("refused");
        assert_eq!(fault_of(&error), fault::CHECKSUM);
        assert_eq!(names(root.path()), ["f"]);
        assert_eq!(fs::read(root.path().join("f")).expect("reads"), b"old");

        // Less than the whole file is no damage: the rest is asked for.
        write(root.path(), "f", b"as").expect("written");
        let error =
            place(root.path(), "f", &file(b"as sent", attributes(0o644)), None).error.expect("refused");
        assert_eq!(fault_of(&error), fault::INCOMPLETE);
        assert_eq!(names(root.path()).len(), 2);
    }

    #[test]
    fn a_part_goes_on_where_it_was_and_one_that_is_not_ours_is_not_touched() {
        let root = tempfile::tempdir().expect("a directory");
        let content: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let mut part = Part::open(root.path(), &path("f"), PART, 10_000, false).expect("made");
        part.write(0, &content[..4321]).expect("written");
        assert!(part.write(4000, b"x").is_err(), "bytes out of order were taken");
        drop(part);
        let mut part = Part::open(root.path(), &path("f"), PART, 10_000, false).expect("opened again");
        assert_eq!(part.held(), 4321);
        part.write(4321, &content[4321..]).expect("written");
        assert!(part.write(10_000, b"x").is_err(), "more than the whole was taken");
        let held = Held { size: part.held(), digest: part.finish().expect("durable") };
        assert_eq!(hex(&held.digest), sha256(&content));
        assert_eq!(place(root.path(), "f", &file(&content, attributes(0o600)), Some(held)).error, None);
        assert_eq!(fs::read(root.path().join("f")).expect("reads"), content);

        // A link with a part's name leads nowhere.
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("victim"), "untouched").expect("written");
        for plant in ["symlink", "hard link", "readable by others"] {
            let beside = root.path().join(format!(".g.{PART}.part"));
            match plant {
                "symlink" => symlink(outside.path().join("victim"), &beside).expect("planted"),
                "hard link" => fs::hard_link(outside.path().join("victim"), &beside).expect("planted"),
                _ => fs::write(&beside, "abc").expect("planted"),
            }
            let mut part = Part::open(root.path(), &path("g"), PART, 3, false).expect("opened");
            assert_eq!(part.held(), 0, "{plant}");
            part.write(0, b"xyz").expect("written");
            part.remove();
            assert_eq!(fs::read(outside.path().join("victim")).expect("reads"), b"untouched", "{plant}");
        }
    }

    #[test]
    fn nothing_goes_through_a_symbolic_link_below_the_root() {
        let root = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("secret"), "secret").expect("written");
        symlink(outside.path(), root.path().join("d")).expect("planted");
        symlink(outside.path().join("secret"), root.path().join("l")).expect("planted");

        let refused = |error: Error| assert_eq!(fault_of(&error), fault::KIND, "{error:?}");
        refused(Part::open(root.path(), &path("d/f"), PART, 1, true).expect_err("refused"));
        refused(Source::open(root.path(), &path("d/secret"), None, false).expect_err("refused"));
        refused(Source::open(root.path(), &path("l"), None, false).expect_err("refused"));
        refused(library::stat(root.path(), &path("d/secret")).expect_err("refused"));
        for placing in [
            Placing::Directory { mode: 0o755 },
            Placing::Attributes { attributes: attributes(0o777) },
            Placing::Symlink { target: "x".into(), attributes: attributes(0o777) },
        ] {
            refused(place(root.path(), "d/x", &placing, None).error.expect("refused"));
        }
        refused(place(root.path(), "d", &Placing::Directory { mode: 0o755 }, None).error.expect("refused"));
        refused(
            place(root.path(), "d", &Placing::Attributes { attributes: attributes(0o777) }, None)
                .error
                .expect("refused"),
        );
        assert_eq!(names(outside.path()), ["secret"]);

        // A link in the place of a file is replaced, not written through.
        let held = write(root.path(), "l", b"new").expect("written");
        assert_eq!(place(root.path(), "l", &file(b"new", attributes(0o644)), Some(held)).error, None);
        assert!(root.path().join("l").symlink_metadata().expect("there").is_file());
        assert_eq!(fs::read(outside.path().join("secret")).expect("reads"), b"secret");

        // The root itself is what a person named: there a link is followed.
        let named = root.path().join("named");
        symlink(outside.path(), &named).expect("made");
        assert!(library::stat(&named, &path("secret")).expect("looked").is_some());
    }

    #[test]
    fn a_directory_that_becomes_a_link_during_the_copy_leads_nowhere() {
        let root = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("d")).expect("made");
        let held = write(root.path(), "d/f", b"content").expect("written");
        fs::rename(root.path().join("d"), root.path().join("moved")).expect("moved");
        symlink(outside.path(), root.path().join("d")).expect("planted");
        let error = place(root.path(), "d/f", &file(b"content", attributes(0o644)), Some(held)).error;
        assert_eq!(fault_of(&error.expect("refused")), fault::KIND);
        assert!(names(outside.path()).is_empty());
    }

    #[test]
    fn places_that_no_file_may_take_are_known_before_the_first_byte() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("d")).expect("made");
        let made = Command::new("mkfifo").arg(root.path().join("pipe")).status().expect("runs");
        assert!(made.success());
        for (place, kind) in [("d", fault::KIND), ("pipe", fault::KIND), ("no/such", fault::NOT_FOUND)] {
            let error = Part::open(root.path(), &path(place), PART, 1, true).expect_err(place);
            assert_eq!(fault_of(&error), kind, "{place}: {error}");
        }
        let error = Source::open(root.path(), &path("pipe"), None, false).expect_err("a pipe");
        assert_eq!(fault_of(&error), fault::KIND);
        assert_eq!(names(root.path()), ["d", "pipe"]);
    }

    #[test]
    fn a_file_that_shrinks_is_told_and_one_that_grows_is_read_to_the_size_it_had() {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().join("f");
        fs::write(&at, vec![1u8; 5000]).expect("written");
        let mut source = Source::open(root.path(), &path("f"), None, true).expect("opened");
        assert_eq!(source.read(1000).expect("reads").expect("bytes").len(), 1000);
        fs::OpenOptions::new().write(true).open(&at).expect("opened").set_len(2000).expect("cut");
        let error = loop {
            match source.read(700) {
                Ok(read) => assert!(read.is_some(), "the end came without a word"),
                Err(error) => break error,
            }
        };
        assert_eq!(fault_of(&error), fault::SHRANK);
        assert!(error.message.contains("5000") && error.message.contains("2000"), "{error}");
        let error = Source::open(root.path(), &path("f"), Some(5000), true).expect_err("too short");
        assert_eq!(fault_of(&error), fault::SHRANK);

        let mut source = Source::open(root.path(), &path("f"), None, true).expect("opened");
        fs::write(&at, vec![1u8; 9000]).expect("grown");
        let mut read = 0;
        while let Some(piece) = source.read(700).expect("reads") {
            read += piece.len();
        }
        let note = source.note().expect("a note");
        assert_eq!((read, note.size_now), (2000, 9000));
        assert_eq!(note.sha256, sha256(&vec![1u8; 2000]));
    }

    #[test]
    fn a_tree_is_listed_whole_whatever_the_page() {
        let root = tempfile::tempdir().expect("a directory");
        for directory in ["a", "a/b", "a/b/c", "a.b", "z", "a b"] {
            fs::create_dir(root.path().join(directory)).expect("made");
        }
        for file in ["a/1", "a/b/2", "a/b/c/3", "a.b/4", "z/5", "0", "a/é"] {
            fs::write(root.path().join(file), file).expect("written");
        }
        symlink("../outside", root.path().join("a/link")).expect("made");
        let listed = |limit: usize| {
            let (mut all, mut next) = (Vec::new(), None);
            loop {
                let page = library::list(root.path(), next.as_ref(), limit).expect("listed");
                assert!(page.entries.len() <= limit);
                // Listing reads directories, which changes when they were read last.
                all.extend(
                    page.entries.into_iter().map(|entry| Entry { atime: FileTime::default(), ..entry }),
                );
                match page.next {
                    Some(path) => next = Some(Relative::parse(&path).expect("a path")),
                    None => return all,
                }
            }
        };
        let whole = listed(1000);
        assert_eq!(whole.len(), 14);
        let paths: Vec<_> = whole.iter().map(|entry| entry.path.to_text().into_owned()).collect();
        let before = |a: &str, b: &str| {
            let at = |path: &str| paths.iter().position(|other| other == path).expect("listed");
            assert!(at(a) < at(b), "{a} comes behind {b}");
        };
        before("a", "a/1");
        before("a/b", "a/b/c");
        before("a/b/c/3", "a.b/4");
        let link = whole.iter().find(|entry| entry.kind == EntryKind::Symlink).expect("a link");
        assert_eq!(link.target, Some(ByteString::from("../outside")));
        for limit in 1..10 {
            assert_eq!(listed(limit), whole, "pages of {limit}");
        }
        // What was listed last is gone: the rest follows all the same.
        let page = library::list(root.path(), Some(&path("a/b/1")), 1000).expect("listed");
        assert_eq!(page.entries.first().expect("more").path.to_text(), "a/b/2");
    }

    /// Needs root: only that may mount a file system, which is small.
    #[test]
    fn a_full_disk_leaves_the_old_file_and_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("this test mounts a file system, for which it has to be root");
            return;
        }
        let root = tempfile::tempdir().expect("a directory");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(root.path()).status();
        assert!(mounted.expect("runs").success(), "cannot mount");
        let result = std::panic::catch_unwind(|| {
            fs::write(root.path().join("f"), "old").expect("written");
            // Where room can be set aside it is known at once.
            let error = Part::open(root.path(), &path("f"), PART, 3 << 20, true).expect_err("too large");
            assert_eq!(fault_of(&error), fault::FULL, "{error}");
            assert_eq!(names(root.path()), ["f"]);
            // Else when it happens.
            let mut part = Part::open(root.path(), &path("f"), PART, 600 << 10, true).expect("fits");
            fs::write(root.path().join("other"), vec![0u8; 300 << 10]).expect("fits");
            let mut failed = None;
            for i in 0..600u64 {
                if let Err(error) = part.write(i << 10, &[1; 1024]) {
                    part.remove();
                    failed = Some(error);
                    break;
                }
            }
            if let Some(error) = failed {
                assert_eq!(fault_of(&error), fault::FULL, "{error}");
                assert_eq!(names(root.path()), ["f", "other"]);
            }
            assert_eq!(fs::read(root.path().join("f")).expect("reads"), b"old");
        });
        Command::new("umount").arg("-l").arg(root.path()).status().expect("unmounted");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }
}
