//! `cp`: what arrives is what was sent, wherever it was cut off in between.

mod common;

mod files {
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::process::Child;
    use std::time::{Duration, Instant};

    use super::common::{PATIENCE, World, finish, process_signal, wait_until};
    use rustix::process::Signal;

    /// Bytes of the copies that are cut off.
    const LARGE: usize = 64 << 20;

    /// Bytes that differ everywhere, so that a piece in a wrong place is found.
    fn content(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&state.to_be_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn text(path: &Path) -> String {
        path.to_str().expect("a path of text").to_owned()
    }

    /// Everything below a directory: its path, permissions, and what it holds.
    fn tree(directory: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut waiting = vec![directory.to_path_buf()];
        while let Some(path) = waiting.pop() {
            let meta = path.symlink_metadata().expect("there");
            let name = path.strip_prefix(directory).expect("below").to_string_lossy().into_owned();
            let holds = if meta.is_dir() {
                waiting.extend(
                    fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("one").path()),
                );
                Vec::new()
            } else if meta.is_symlink() {
                fs::read_link(&path).expect("a link").into_os_string().into_vec()
            } else {
                fs::read(&path).expect("reads")
            };
            let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
            found.push((name, mode, holds));
        }
        found.sort();
        found
    }

    fn make_tree(directory: &Path) {
        fs::create_dir_all(directory.join("empty")).expect("made");
        fs::create_dir_all(directory.join("a/b/c")).expect("made");
        fs::write(directory.join("a/b/c/deep"), "deep").expect("written");
        fs::write(directory.join("a/large"), content(700_000)).expect("written");
        fs::write(directory.join("none"), "").expect("written");
        fs::write(directory.join("run"), "#!/bin/sh\n").expect("written");
        for i in 0..40 {
            fs::write(directory.join(format!("a/b/{i}")), format!("file {i}")).expect("written");
        }
        let not_text = std::ffi::OsString::from_vec(b"not \xff text".to_vec());
        fs::write(directory.join(not_text), "x").expect("written");
        symlink("../run", directory.join("a/link")).expect("made");
        symlink("/no/such/place", directory.join("dangling")).expect("made");
        let mode = |path: &str, mode| {
            fs::set_permissions(directory.join(path), fs::Permissions::from_mode(mode)).expect("mode");
        };
        mode("run", 0o755);
        mode("none", 0o600);
        mode("a/b", 0o711);
        mode("empty", 0o500);
    }

    #[test]
    fn one_file_goes_up_and_comes_down() {
        let world = World::with_hosts(["web1"]);
        let dir = world.path();
        let (there, back) = (dir.join("there"), dir.join("back"));
        fs::create_dir(&there).expect("made");
        let bytes = content(1_000_003);
        fs::write(dir.join("source"), &bytes).expect("written");
        fs::set_permissions(dir.join("source"), fs::Permissions::from_mode(0o640)).expect("mode");
        let source = text(&dir.join("source"));

        // Into a directory, under the same name.
        world.run(["cp", &source, &format!("web1:{}", there.display())]).ok();
        assert_eq!(fs::read(there.join("source")).expect("there"), bytes);
        assert_eq!(there.join("source").metadata().expect("there").mode() & 0o7777, 0o640);
        // Under another name, and with its time.
        let named = format!("web1:{}", there.join("named").display());
        let output = world.run(["-o", "json", "cp", "-p", &source, &named]).ok().json();
        assert_eq!(output["files"], 1, "{output}");
        assert_eq!(output["bytes"], 1_000_003, "{output}");
        let modified = |path: &Path| path.metadata().expect("there").modified().expect("a time");
        assert_eq!(modified(&there.join("named")), modified(Path::new(&source)));
        // And back.
        world.run(["cp", &named, &text(&back)]).ok();
        assert_eq!(fs::read(&back).expect("back"), bytes);
        assert_eq!(tree(&there).len(), 3, "something was left behind: {:?}", fs::read_dir(&there));

        // Entries are moved into the audit a moment later.
        wait_until("both are in the audit", || {
            let audit = world.run(["-o", "json", "audit", "list"]).ok().stdout;
            audit.contains("file.place") && audit.contains("file.read")
        });
    }

    #[test]
    fn what_cannot_be_copied_is_said_and_changes_nothing() {
        let mut world = World::with_hosts(["web1", "web2"]);
        world.stop_agent("web2");
        let dir = text(world.path());
        fs::write(format!("{dir}/f"), "content").expect("written");
        fs::create_dir(format!("{dir}/d")).expect("made");
        let fails = |args: &[&str], code: i32, says: &str| {
            let output = world.run([&["cp"], args].concat());
            assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{args:?}: {output:?}");
            assert!(output.stderr.contains(says), "{args:?}: {output:?}");
        };
        fails(&[&format!("web1:{dir}/none"), "."], 1, "no such file");
        fails(&[&format!("{dir}/f"), &format!("web1:{dir}/no/such")], 1, "no such");
        fails(&[&format!("{dir}/f"), &format!("web1:{dir}/f/x")], 1, "not a directory");
        fails(&[&format!("{dir}/d"), &format!("web1:{dir}/x")], 1, "-r");
        fails(&[&format!("{dir}/f"), &format!("web2:{dir}/x")], 1, "not connected");
        fails(&[&format!("{dir}/f"), &format!("nosuch:{dir}/x")], 2, "nosuch");
        fails(&[&format!("{dir}/f"), &format!("{dir}/x")], 2, "HOST:PATH");
        fails(&["--on", "db*", &format!("{dir}/f"), ":/x"], 2, "no host matches");
        assert!(!Path::new(&format!("{dir}/x")).exists());
    }

    #[test]
    fn trees_are_the_same_on_both_sides() {
        let world = World::with_hosts(["web1"]);
        let dir = world.path();
        make_tree(&dir.join("site"));
        let site = text(&dir.join("site"));
        let there = format!("web1:{}", dir.join("there").display());
        let output = world.run(["-o", "json", "cp", "-r", &site, &there]).ok().json();
        assert_eq!(output["symlinks"], 2, "{output}");
        assert_eq!(tree(&dir.join("there")), tree(&dir.join("site")));
        let back = dir.join("back");
        world.run(["cp", "-r", "-p", &there, &text(&back)]).ok();
        assert_eq!(tree(&back), tree(&dir.join("site")));
        let modified = |path: PathBuf| path.metadata().expect("there").modified().expect("a time");
        assert_eq!(modified(back.join("a")), modified(dir.join("there/a")));
        // Over itself once more: into the directory that is there now.
        world.run(["cp", "-r", &site, &there]).ok();
        assert_eq!(tree(&dir.join("there/site")), tree(&dir.join("site")));
    }

    #[test]
    fn many_hosts_at_once() {
        let world = World::with_hosts(["web1", "web2"]);
        let dir = world.path();
        fs::create_dir(dir.join("logs")).expect("made");
        fs::write(dir.join("logs/x"), "one").expect("written");
        let file = dir.join("logs/x").display().to_string();
        let (chosen, into) = (format!(":{file}"), text(&dir.join("all")));
        world.run(["cp", "--on", "web*", &chosen, &into]).ok();
        for host in ["web1", "web2"] {
            assert_eq!(fs::read_to_string(dir.join("all").join(host).join("x")).expect("copied"), "one");
        }
        let output =
            world.run(["-o", "json", "cp", "--on", "web*", &file, &format!(":{}", dir.join("up").display())]);
        let document = output.ok().json();
        assert_eq!(document["targets"].as_array().expect("targets").len(), 2);
        assert_eq!(fs::read_to_string(dir.join("up")).expect("copied"), "one");
    }

    /// The part beside a place, and how much of it is there.
    fn part(directory: &Path) -> Option<(PathBuf, u64)> {
        let mut entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
        let part = entries.find(|entry| entry.file_name().to_string_lossy().ends_with(".part"))?;
        Some((part.path(), part.metadata().ok()?.len()))
    }

    /// Waits until a copy has come this far, and is not at its end.
    fn until(copy: &mut Child, directory: &Path, bytes: u64) {
        let began = Instant::now();
        while part(directory).is_none_or(|(_, there)| there < bytes) {
            assert!(copy.try_wait().expect("a child").is_none(), "the copy ended too early for this test");
            assert!(began.elapsed() < PATIENCE, "the copy does not come to {bytes} bytes");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_copy_survives_its_hub_and_its_agent() {
        let mut world = World::with_hosts(["web1"]);
        let dir = world.path().to_path_buf();
        let there = dir.join("there");
        fs::create_dir(&there).expect("made");
        let bytes = content(LARGE);
        fs::write(dir.join("large"), &bytes).expect("written");
        for (from, to) in [("large", "web1:there/up"), ("web1:there/up", "there/down")] {
            let full = |place: &str| match place.strip_prefix("web1:") {
                Some(path) => format!("web1:{}", dir.join(path).display()),
                None => text(&dir.join(place)),
            };
            let mut copy = world.spawn(["cp", &full(from), &full(to)]);
            until(&mut copy, &there, 4 << 20);
            world.kill_hub();
            world.start_hub();
            until(&mut copy, &there, 20 << 20);
            let inode = part(&there).expect("a part").0.metadata().expect("there").ino();
            world.kill_agent("web1");
            world.start_agent("web1");
            let output = finish(copy);
            assert_eq!(output.code, 0, "{output:?}");
            let copied = dir.join(to.trim_start_matches("web1:"));
            assert!(fs::read(&copied).expect("copied") == bytes, "{to} is not what was sent");
            // It went on with what was there instead of beginning anew.
            assert_eq!(copied.metadata().expect("there").ino(), inode);
            assert_eq!(part(&there), None);
        }
    }

    #[test]
    fn a_copy_that_was_killed_is_taken_up_again() {
        let world = World::with_hosts(["web1"]);
        let dir = world.path().to_path_buf();
        let there = dir.join("there");
        fs::create_dir(&there).expect("made");
        let bytes = content(LARGE);
        fs::write(dir.join("large"), &bytes).expect("written");
        let (large, to) = (text(&dir.join("large")), format!("web1:{}", there.join("f").display()));
        let mut copy = world.spawn(["cp", &large, &to]);
        until(&mut copy, &there, 8 << 20);
        process_signal(&copy, Signal::KILL);
        assert_ne!(finish(copy).code, 0);
        let (kept, _) = part(&there).expect("a part is kept");
        assert!(!there.join("f").exists(), "half a file has the name of the whole");
        let inode = kept.metadata().expect("there").ino();
        world.run(["cp", "--resume", &large, &to]).ok();
        assert!(fs::read(there.join("f")).expect("copied") == bytes, "it is not what was sent");
        assert_eq!(there.join("f").metadata().expect("there").ino(), inode, "it was begun anew");
        wait_until("nothing is left", || part(&there).is_none());
    }
}
