//! Terminals, as a person has them: the program runs in a window of tmux, and everything around it is killed.

mod common;

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use common::{Tmux, World, finish, wait_until};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

/// A plain shell, whatever shell the user of the tests has.
const SH: [&str; 7] = ["env", "PS1=ready> ", "ENV=", "HISTFILE=", "LC_ALL=C.UTF-8", "sh", "-i"];

/// A line with its prompt only.
const PROMPT: &str = "ready>";

fn shell<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["shell", "web1", "--"], args].concat()
}

/// The id of the one terminal there is.
fn id(world: &World) -> String {
    let listed = world.run(["terminal", "list", "-o", "json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    listed[0]["run"].as_str().expect("an id").to_owned()
}

#[test]
fn an_editor_and_top_work_as_anywhere() {
    let world = World::with_hosts(["web1"]);
    let file = world.path().join("written");
    let tmux = Tmux::run(&world, "a", 80, 24, &shell(&SH));
    tmux.wait_for_line(PROMPT);
    tmux.line(&format!("vi -u NONE -n {}", file.display()));
    wait_until("the editor is there", || tmux.cursor().ends_with(" 1") || tmux.screen().len() > 20);
    tmux.text("ihello from afar: é€");
    tmux.keys(&["Escape"]);
    tmux.wait_for("hello from afar: é€");
    tmux.line(":wq");
    wait_until("the file is written", || std::fs::read_to_string(&file).is_ok_and(|text| !text.is_empty()));
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "hello from afar: é€\n");
    tmux.line("top -d 1");
    tmux.wait_for("load average");
    tmux.keys(&["q"]);
    tmux.line("echo back-$((40+2))");
    tmux.wait_for("back-42");
    tmux.line("exit 9");
    tmux.wait_for_line("ended with 9");
}

#[test]
fn the_size_follows_the_window() {
    let world = World::with_hosts(["web1"]);
    let tmux = Tmux::run(&world, "a", 90, 25, &shell(&SH));
    tmux.wait_for_line(PROMPT);
    tmux.line("stty size");
    tmux.wait_for_line("25 90");
    for (cols, rows) in [(100, 30), (60, 20), (61, 21), (62, 22)] {
        tmux.resize(cols, rows);
    }
    // Whoever asks at once may be faster than the size, so it is asked until it is there.
    wait_until("the last size has arrived", || {
        tmux.line("clear; stty size");
        std::thread::sleep(Duration::from_millis(200));
        tmux.screen().iter().any(|line| line == "22 62")
    });
    tmux.line("kill -TERM $$; kill -KILL $$");
    tmux.wait_for_line(&format!("ended with {}", 128 + 9));
}

#[test]
fn one_detaches_the_agent_is_killed_and_the_screen_is_there_again() {
    let mut world = World::with_hosts(["web1"]);
    let file = world.path().join("written");
    let place = file.to_str().expect("a path").to_owned();
    let tmux =
        Tmux::run(&world, "a", 80, 24, &shell(&["env", "LC_ALL=C.UTF-8", "vi", "-u", "NONE", "-n", &place]));
    wait_until("the editor is there", || tmux.screen().len() > 20);
    tmux.text("ia line\rand another é");
    tmux.keys(&["Escape"]);
    tmux.wait_for("and another é");
    tmux.wait_until_quiet();
    let (screen, cursor) = (tmux.screen(), tmux.cursor());
    tmux.keys(&["C-]"]);
    tmux.keys(&["d"]);
    tmux.wait_for("Come back with: datacentered terminal attach");
    tmux.wait_for_line("ended with 0");
    assert!(tmux.cursor().ends_with(" 0"), "the other screen was left: {}", tmux.cursor());

    world.kill_agent("web1");
    world.start_agent("web1");
    let again = Tmux::run(&world, "b", 80, 24, &["terminal", "attach", &id(&world)]);
    again.wait_for("and another é");
    again.wait_until_quiet();
    assert_eq!((again.screen(), again.cursor()), (screen, cursor));
    // It is the same program, and it takes what is typed.
    again.text("o3rd");
    again.keys(&["Escape"]);
    again.line(":wq");
    again.wait_for_line("ended with 0");
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "a line\nand another é\n3rd\n");
    assert!(world.run(["terminal", "list", "--active", "-o", "json"]).ok().json() == serde_json::json!([]));
}

#[test]
fn an_open_shell_goes_on_when_the_hub_is_killed() {
    let mut world = World::with_hosts(["web1"]);
    let tmux = Tmux::run(&world, "a", 80, 24, &shell(&SH));
    tmux.wait_for_line(PROMPT);
    let script = world.path().join("counted");
    tmux.line(&format!("one() {{ echo \"$1\" >> {}; }}", script.display()));
    for round in 0..3 {
        for i in 0..5 {
            tmux.line(&format!("one {round}.{i}"));
        }
        world.kill_hub();
        // Typed while there is no hub; it waits.
        tmux.line(&format!("one {round}.5"));
        std::thread::sleep(Duration::from_millis(300));
        world.start_hub();
        tmux.line(&format!("one {round}.6; echo \"round-{round}\"-over"));
        tmux.wait_for(&format!("round-{round}-over"));
    }
    let counted = std::fs::read_to_string(&script).expect("a file");
    let expected: Vec<String> =
        (0..3).flat_map(|round| (0..7).map(move |i| format!("{round}.{i}"))).collect();
    assert_eq!(counted.lines().collect::<Vec<_>>(), expected, "each line once and in order");
    tmux.line("exit 7");
    tmux.wait_for_line("ended with 7");
}

#[test]
fn a_recording_plays_back_to_the_same_screen() {
    let world = World::with_hosts(["web1"]);
    let tmux = Tmux::run(&world, "a", 70, 20, &shell(&SH));
    tmux.wait_for_line(PROMPT);
    tmux.line("printf 'plain \\033[31mred\\033[0m \\342\\202\\254\\n'; seq 1 30");
    tmux.wait_for_line("30");
    tmux.resize(90, 22);
    wait_until("the size has arrived", || {
        tmux.line("stty size");
        std::thread::sleep(Duration::from_millis(200));
        tmux.screen().iter().any(|line| line == "22 90")
    });
    tmux.line("clear; echo wide; vi -u NONE -n");
    wait_until("the editor is there", || tmux.screen().len() > 20);
    tmux.text("isome text é€😀");
    tmux.keys(&["Escape", "0"]);
    tmux.wait_for("some text é€😀");
    tmux.wait_until_quiet();

    let file = world.path().join("session.cast");
    let place = file.to_str().expect("a path").to_owned();
    world.run(["terminal", "export", &id(&world), &place]).ok();
    let text = std::fs::read_to_string(&file).expect("a recording");
    let mut lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let header = lines.next().expect("a header");
    assert_eq!(
        (&header["version"], &header["width"], &header["height"]),
        (&2.into(), &70.into(), &20.into())
    );
    assert!(header["timestamp"].as_u64().is_some_and(|at| at > 1_700_000_000), "{header}");
    assert!(header["env"]["TERM"].is_string(), "{header}");
    let mut emulator = avt::Terminal::new(70, 20).expect("a size");
    let mut before = 0.0;
    let mut resized = Vec::new();
    for event in lines {
        let at = event[0].as_f64().expect("a time");
        assert!(at >= before, "time goes forward");
        before = at;
        let data = event[2].as_str().expect("data");
        match event[1].as_str() {
            Some("o") => emulator.feed(data),
            Some("r") => {
                let (cols, rows) = data.split_once('x').expect("a size");
                emulator.resize(cols.parse().expect("columns"), rows.parse().expect("rows"));
                resized.push(data.to_owned());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resized.last().map(String::as_str), Some("90x22"));
    assert!(before > 0.2, "the pauses are in it: {before}");
    let mut shown: Vec<String> =
        emulator.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect();
    while shown.last().is_some_and(String::is_empty) {
        shown.pop();
    }
    assert_eq!(shown, tmux.screen());
    let (col, row) = emulator.cursor().position().expect("a cursor");
    assert_eq!(format!("{col},{row} 1"), tmux.cursor());

    // And played, it is the same bytes at their pace.
    tmux.keys(&["Escape"]);
    tmux.line(":q!");
    tmux.line("exit");
    tmux.wait_for_line("ended with 0");
    let play = world.run(["terminal", "play", &id(&world), "--speed", "1000"]).ok();
    assert!(play.stdout.contains("plain \u{1b}[31mred\u{1b}[0m €\r\n"), "{}", play.stdout);
}

#[test]
fn without_a_terminal_it_is_a_pipe() {
    let world = World::with_hosts(["web1"]);
    let output = world.run_with_input(shell(&["sh"]), b"echo a-$((40+2))-b\nexit 3\n");
    assert_eq!((output.code, output.stderr.as_str()), (3, ""));
    assert!(output.stdout.contains("a-42-b\r\n"), "{output:?}");
    // The end of input is typed, too.
    let output = world.run_with_input(shell(&["cat"]), b"no end of line").ok();
    assert!(output.stdout.contains("no end of line"), "{output:?}");
    // As with ssh: everything else is 255.
    assert_eq!(world.run(["shell", "nowhere"]).code, 255);
    assert_eq!(world.run(shell(&["/does/not/exist"])).code, 255);
    let size = world.run(shell(&["stty", "size"]));
    assert_eq!(size.stdout, "24 80\r\n");
    let run = world.run(["terminal", "list", "-o", "json"]).ok().json()[0]["run"]
        .as_str()
        .expect("an id")
        .to_owned();
    let refused = world.run(["run", "attach", &run]);
    assert!(refused.code != 0 && refused.stderr.contains("datacentered terminal attach"), "{refused:?}");
}

#[test]
fn a_window_of_no_size_is_a_usual_one() {
    let world = World::with_hosts(["web1"]);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = openpt(flags).expect("a terminal");
    unlockpt(&master).expect("unlocked");
    let slave = File::from(ioctl_tiocgptpeer(&master, flags).expect("its other end"));
    let mut command = world.program();
    command.env("DATACENTERED_HUB", world.socket()).args(shell(&["stty", "size"]));
    command.stdin(slave.try_clone().expect("a copy")).stdout(slave).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    drop(command);
    let output = finish(child);
    assert_eq!(output.code, 0, "{output:?}");
    let mut printed = vec![0; 4096];
    let length = File::from(master).read(&mut printed).expect("what was printed");
    let printed = String::from_utf8_lossy(&printed[..length]).into_owned();
    assert!(printed.contains("24 80"), "{printed:?}");
}

#[test]
fn two_share_one_and_a_third_only_watches() {
    let world = World::with_hosts(["web1"]);
    let first = Tmux::run(&world, "a", 80, 24, &shell(&SH));
    first.wait_for_line(PROMPT);
    let run = id(&world);
    let second = Tmux::run(&world, "b", 80, 24, &["shell", "--attach", &run]);
    let third = Tmux::run(&world, "c", 80, 24, &["terminal", "attach", &run, "--read-only"]);
    second.wait_for_line(PROMPT);
    third.wait_for_line(PROMPT);
    third.line("echo never-$((1+1))");
    first.line("echo first-$((1+1))");
    for window in [&first, &second, &third] {
        window.wait_for_line("first-2");
    }
    second.line("echo second-$((1+1))");
    for window in [&first, &second, &third] {
        window.wait_for_line("second-2");
        assert!(!window.screen().iter().any(|line| line.contains("never")), "{:?}", window.screen());
    }
    let listed = world.run(["terminal", "list", "--active", "-o", "json"]).ok().json();
    assert_eq!((&listed[0]["watchers"], &listed[0]["writers"]), (&3.into(), &2.into()), "{listed}");
    second.line("exit 5");
    for window in [&first, &second, &third] {
        window.wait_for_line("ended with 5");
    }
}
