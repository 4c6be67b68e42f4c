//! What the host itself runs on: the sources and the order that `systemd-detect-virt` uses.
//!
//! A container inside a virtual machine is told as the container, because that is what limits the host most.

use std::path::Path;

use super::text::{at, bytes, text};
use crate::text::clean;

/// Longest name taken from a file that somebody else wrote.
const MAX_NAME: usize = 32;

/// What the processor says about its hypervisor: the vendor text of leaf `0x4000_0000`.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
pub(super) fn cpu_vendor() -> Option<String> {
    #[cfg(target_arch = "x86")]
    use std::arch::x86::__cpuid;
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::__cpuid;

    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let vendor: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx].into_iter().flat_map(u32::to_le_bytes).collect();
    Some(String::from_utf8_lossy(&vendor).trim_end_matches('\0').to_owned())
}

/// Other processors have no such place; files tell.
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
pub(super) fn cpu_vendor() -> Option<String> {
    None
}

/// The name of what the host is virtualised by, `none` on bare metal.
pub(super) fn detect(root: &Path, cpu_vendor: Option<&str>) -> String {
    container(root).or_else(|| machine(root, cpu_vendor)).unwrap_or_else(|| "none".to_owned())
}

fn container(root: &Path) -> Option<String> {
    let exists = |path: &str| at(root, path).exists();
    if exists("/proc/vz") && !exists("/proc/bc") {
        return Some("openvz".into());
    }
    let release = text(root, "/proc/sys/kernel/osrelease");
    if release.contains("Microsoft") || release.contains("WSL") {
        return Some("wsl".into());
    }
    let environment = bytes(root, "/proc/1/environ");
    let from_environment = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"container="))
        .map(|name| String::from_utf8_lossy(name).into_owned());
    let named = [
        text(root, "/run/host/container-manager"),
        text(root, "/run/systemd/container"),
        from_environment.unwrap_or_default(),
    ];
    if let Some(name) = named.iter().map(|name| clean(name, MAX_NAME)).find(|name| !name.is_empty()) {
        // podman calls itself `oci` here on some distributions; every other name is the common one.
        return Some(if name == "oci" && exists("/run/.containerenv") { "podman".into() } else { name });
    }
    if exists("/run/.containerenv") {
        return Some("podman".into());
    }
    exists("/.dockerenv").then(|| "docker".into())
}

fn machine(root: &Path, cpu_vendor: Option<&str>) -> Option<String> {
    let dmi = from_dmi(root);
    // DMI knows these products better than the processor does: they run on KVM or Xen, or imitate Hyper-V.
    if let Some(name) = dmi.filter(|name| matches!(*name, "oracle" | "amazon" | "parallels" | "google")) {
        return Some(name.into());
    }
    if let Some(capabilities) = xen_capabilities(root) {
        // The control domain is the physical machine itself.
        return (!capabilities.contains("control_d")).then(|| "xen".into());
    }
    let by_processor = cpu_vendor.and_then(from_cpu_vendor);
    let clocks = || text(root, "/sys/devices/system/clocksource/clocksource0/available_clocksource");
    let name = by_processor
        .map(str::to_owned)
        .or_else(|| clocks().contains("kvm-clock").then(|| "kvm".into()))
        .or_else(|| dmi.map(str::to_owned))
        .or_else(|| from_device_tree(root))
        .or_else(|| text(root, "/proc/cpuinfo").contains("User Mode Linux").then(|| "uml".into()));
    // The processor admits to a hypervisor that nothing names.
    name.or_else(|| (cpu_vendor.is_some() || has_hypervisor_flag(root)).then(|| "vm-other".into()))
}

fn xen_capabilities(root: &Path) -> Option<String> {
    let is_xen = text(root, "/sys/hypervisor/type").trim() == "xen" || at(root, "/proc/xen").is_dir();
    is_xen.then(|| text(root, "/proc/xen/capabilities"))
}

fn from_cpu_vendor(vendor: &str) -> Option<&'static str> {
    Some(match vendor {
        "KVMKVMKVM" | "Linux KVM Hv" => "kvm",
        "TCGTCGTCGTCG" => "qemu",
        "XenVMMXenVMM" => "xen",
        "VMwareVMware" => "vmware",
        "Microsoft Hv" => "microsoft",
        "bhyve bhyve " | "bhyve bhyve" => "bhyve",
        "QNXQVMBSQG" => "qnx",
        "ACRNACRNACRN" => "acrn",
        "SRESRESRESRE" => "sre",
        "Apple VZ" => "apple",
        _ => return None,
    })
}

fn from_dmi(root: &Path) -> Option<&'static str> {
    const FILES: [&str; 5] = ["product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version"];
    const NAMES: [(&str, &str); 17] = [
        ("KVM", "kvm"),
        ("OpenStack", "kvm"),
        ("KubeVirt", "kvm"),
        ("Amazon EC2", "amazon"),
        ("QEMU", "qemu"),
        ("VMware", "vmware"),
        ("VMW", "vmware"),
        ("innotek GmbH", "oracle"),
        ("VirtualBox", "oracle"),
        ("Oracle Corporation", "oracle"),
        ("Xen", "xen"),
        ("Bochs", "bochs"),
        ("Parallels", "parallels"),
        ("BHYVE", "bhyve"),
        ("Hyper-V", "microsoft"),
        ("Apple Virtualization", "apple"),
        ("Google Compute Engine", "google"),
    ];
    // Amazon and Oracle also sell machines without a hypervisor, with the same names.
    if at(root, "/proc/cpuinfo").exists() && !has_hypervisor_flag(root) && is_x86(root) {
        return None;
    }
    FILES.iter().find_map(|file| {
        let value = text(root, &format!("/sys/class/dmi/id/{file}"));
        NAMES.iter().find(|(prefix, _)| value.starts_with(prefix)).map(|(_, name)| *name)
    })
}

fn is_x86(root: &Path) -> bool {
    text(root, "/proc/cpuinfo").lines().any(|line| line.starts_with("flags"))
}

fn has_hypervisor_flag(root: &Path) -> bool {
    text(root, "/proc/cpuinfo")
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
}

fn from_device_tree(root: &Path) -> Option<String> {
    let compatible = text(root, "/proc/device-tree/hypervisor/compatible");
    let compatible = compatible.trim_end_matches('\0');
    match compatible {
        "linux,kvm" => Some("kvm".into()),
        "vmware" => Some("vmware".into()),
        text if text.contains("xen") => Some("xen".into()),
        "" => at(root, "/proc/device-tree/fw-cfg").exists().then(|| "qemu".into()),
        _ => Some("vm-other".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: (&str, &str) = ("/proc/cpuinfo", "flags\t\t: fpu vme hypervisor\n");
    const METAL: (&str, &str) = ("/proc/cpuinfo", "flags\t\t: fpu vme\n");

    fn detected(cpu_vendor: Option<&str>, files: &[(&str, &str)]) -> String {
        let root = tempfile::tempdir().expect("tempdir");
        for (path, content) in files {
            let path = at(root.path(), path);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            std::fs::write(path, content).expect("writes");
        }
        detect(root.path(), cpu_vendor)
    }

    #[test]
    fn bare_metal_is_none_even_with_a_cloud_vendors_name() {
        assert_eq!(detected(None, &[METAL]), "none");
        assert_eq!(detected(None, &[METAL, ("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n")]), "none");
    }

    #[test]
    fn machines() {
        let dmi = |vendor: &'static str| ("/sys/class/dmi/id/sys_vendor", vendor);
        assert_eq!(detected(Some("KVMKVMKVM"), &[VM, dmi("QEMU\n")]), "kvm");
        assert_eq!(detected(Some("TCGTCGTCGTCG"), &[VM, dmi("QEMU\n")]), "qemu");
        assert_eq!(detected(Some("KVMKVMKVM"), &[VM, dmi("Amazon EC2\n")]), "amazon");
        assert_eq!(detected(None, &[VM, dmi("innotek GmbH\n")]), "oracle");
        assert_eq!(detected(None, &[VM, dmi("VMware, Inc.\n")]), "vmware");
        assert_eq!(detected(None, &[VM]), "vm-other");
        assert_eq!(detected(Some("somebody"), &[VM]), "vm-other");
        assert_eq!(detected(None, &[("/proc/device-tree/hypervisor/compatible", "linux,kvm\0")]), "kvm");
    }

    #[test]
    fn the_control_domain_of_xen_is_the_machine_itself() {
        let guest = ("/sys/hypervisor/type", "xen\n");
        assert_eq!(detected(Some("XenVMMXenVMM"), &[VM, guest]), "xen");
        let control = ("/proc/xen/capabilities", "control_d\n");
        assert_eq!(detected(Some("XenVMMXenVMM"), &[VM, guest, control]), "none");
    }

    #[test]
    fn containers_win_over_the_machine_around_them() {
        assert_eq!(detected(Some("KVMKVMKVM"), &[VM, ("/.dockerenv", "")]), "docker");
        assert_eq!(detected(None, &[("/run/.containerenv", "")]), "podman");
        assert_eq!(detected(None, &[("/proc/1/environ", "A=b\0container=lxc\0")]), "lxc");
        assert_eq!(detected(None, &[("/run/systemd/container", "systemd-nspawn\n")]), "systemd-nspawn");
        assert_eq!(detected(None, &[("/proc/vz/veinfo", "")]), "openvz");
        assert_eq!(detected(None, &[("/proc/vz/veinfo", ""), ("/proc/bc/0", "")]), "none");
        assert_eq!(detected(None, &[("/proc/sys/kernel/osrelease", "5.15.1-microsoft-WSL2\n")]), "wsl");
    }

    #[test]
    fn a_hostile_container_name_is_bounded_and_clean() {
        let name = format!("container=\x1b[2J{}\0", "x".repeat(500));
        let found = detected(None, &[("/proc/1/environ", &name)]);
        assert!(found.len() <= MAX_NAME && !found.contains('\x1b'));
    }
}
