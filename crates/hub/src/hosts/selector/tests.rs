use super::*;
use datacentered_proto::ops::host::{Address, Disk};
use proptest::prelude::*;

fn matches(selector: &str, name: &str, labels: &[(&str, &str)]) -> bool {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let disk = |mount: &str, free| Disk { mount: mount.into(), free_bytes: free, ..Disk::default() };
    let address = |text: &str| Address { interface: "eth0".into(), address: text.into() };
    let facts = Facts {
        os_version: "12".into(),
        os_id: "debian".into(),
        cpus: 8,
        cpu_model: "AMD EPYC 7402P 24-Core Processor".into(),
        kernel: "6.1.0-18-amd64".into(),
        memory_bytes: 64 << 30,
        disks: vec![disk("/", 1 << 30), disk("/var", 500 << 30)],
        addresses: vec![address("10.1.2.3"), address("2001:db8::7")],
        ..Facts::default()
    };
    let host = HostTraits { name, labels: &labels, facts: &facts, online: true };
    Selector::parse(selector).expect("parses").matches(&host)
}

#[test]
fn names_are_alternatives_and_expressions_are_joined() {
    let kvm = &[("role", "kvm")];
    assert!(matches("all", "x", &[]));
    assert!(matches("web-*,db1", "web-7", &[]));
    assert!(matches("web-*,db1", "db1", &[]));
    assert!(!matches("web-*,db1", "db2", &[]));
    assert!(matches("web-*,db1,role=kvm", "db1", kvm));
    assert!(!matches("web-*,db1,role=kvm", "db1", &[]));
    assert!(matches("role=kvm", "anything", kvm));
    assert!(matches("region in (us, eu)", "x", &[("region", "eu")]));
    assert!(!matches("region in (us,eu)", "x", &[("region", "asia")]));
    assert!(matches("region notin (us,eu)", "x", &[]));
    assert!(matches("role!=kvm", "x", &[("role", "lxc")]));
    assert!(matches("!role", "x", &[]));
    assert!(matches("os.version>=12,os=debian,cpus>4", "x", &[]));
    assert!(!matches("os.version<9", "x", &[]));
    assert!(matches("os.version>9", "x", &[]));
    assert!(matches("online=true", "x", &[]));
    assert!(matches("w?b", "web", &[]) && !matches("w?b", "wb", &[]));
}

#[test]
fn wrong_ones_say_what_is_wrong() {
    for bad in ["", ",", "a,,b", "a b", "x in us", "x (a)", "(", ")", "=a", "a$", "in (a)", "a in (b) c"] {
        assert!(Selector::parse(bad).is_err(), "{bad}");
    }
    assert!(Selector::parse(&"a".repeat(MAX_SELECTOR + 1)).is_err());
}

proptest! {
    #[test]
    fn parsing_never_panics(text: String) {
        let _ = Selector::parse(&text);
    }
}

#[test]
fn facts_of_every_kind() {
    for good in [
        "cpu.model=*EPYC*",
        "cpu_model=AMD EPYC 7402P 24-Core Processor",
        "memory>=64G",
        "memory.total=64G",
        "memory_bytes=68719476736",
        "memory<64.5GiB",
        "cpu.count in (4,8)",
        "disks.count=2",
        "disks.free<2G",
        "disks.free>400G",
        "disks.mount=/var",
        "addresses=10.0.0.0/8",
        "addresses in (192.168.0.0/16,2001:db8::/32)",
        "address!=192.168.0.0/16",
        "addresses.interface=eth0",
        "kernel>=6.1.0-9",
        "kernel=6.1.*",
        "cpus exists",
        "os.version?",
        "!virtualisation",
        "swap=0",
        "arch!=x86_64",
    ] {
        assert!(matches(good, "x", &[]), "{good}");
        Selector::parse(good).expect("parses").check(|_| false).expect(good);
    }
    for bad in [
        "cpu.model=EPYC",
        "memory>64G",
        "disks.free>1T",
        "disks.mount!=/var",
        "addresses!=10.0.0.0/8",
        "addresses=11.0.0.0/8",
        "virtualisation exists",
        "!cpus",
        "cpus notin (4,8)",
        "booted>2026",
    ] {
        assert!(!matches(bad, "x", &[]), "{bad}");
    }
}

#[test]
fn labels_win_and_may_carry_sizes() {
    assert!(matches("memory=large", "x", &[("memory", "large")]));
    assert!(matches("size>=2G", "x", &[("size", "4096M")]));
    assert!(!matches("size>=2G", "x", &[("size", "4M")]));
    assert!(matches("rack>=9,rack<12", "x", &[("rack", "10")]));
    assert!(matches("role exists", "x", &[("role", "")]) && !matches("role exists", "x", &[]));
}

#[test]
fn unknown_facts_are_named_with_those_near_them() {
    let problem =
        |text: &str| Selector::parse(text).expect("parses").check(|_| false).err().map(|e| e.to_string());
    for (text, near) in [
        ("os.versoin>=12", "os.version"),
        ("kernal=6.1", "kernel"),
        ("memory.free>1G", "memory.total"),
        ("!cpu.sockets", "cpu.model"),
        ("memory>=much", "64G"),
        ("cpus=eight", "a number"),
        ("addresses=ten", "10.0.0.0/8"),
        ("addresses>10.0.0.0", "10.0.0.0/8"),
    ] {
        let problem = problem(text).unwrap_or_else(|| panic!("{text} passes"));
        assert!(problem.contains(near) && problem.contains(text), "{problem}");
    }
    for fine in ["role=kvm", "region!=eu", "!team", "web-*,db1", "example.com/owner=ann"] {
        assert_eq!(problem(fine), None, "{fine}");
    }
    // A label of that name is meant by it.
    Selector::parse("os.flavour=server").expect("parses").check(|key| key == "os.flavour").expect("a label");
}
