//! What may stand as an address in the file.

use std::net::{IpAddr, Ipv4Addr};

/// What is wrong with a node's own address, or `None`.
pub fn link_fault(address: IpAddr) -> Option<&'static str> {
    let link_local_v6 = matches!(address, IpAddr::V6(v6) if (v6.segments()[0] & 0xffc0) == 0xfe80);
    if address.is_unspecified() {
        Some("is no address of one machine")
    } else if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("is a multicast or broadcast address")
    } else if link_local_v6 {
        Some("is a link-local address, which is ambiguous without its interface")
    } else {
        None
    }
}

/// `address/prefix`, or what is wrong with it.
pub fn parse_prefixed(text: &str) -> Result<(IpAddr, u8), String> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err("lacks the length of its network's prefix, as in \"/24\"".to_owned());
    };
    let address: IpAddr = address.parse().map_err(|_| "is not an IP address".to_owned())?;
    let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = prefix
        .parse()
        .ok()
        .filter(|prefix| (1..=bits).contains(prefix))
        .ok_or_else(|| format!("has no prefix length of 1 to {bits}"))?;
    if let Some(fault) = link_fault(address) {
        return Err(fault.to_owned());
    }
    if address.is_loopback() {
        return Err("is a loopback address, which no other machine can reach".to_owned());
    }
    if let IpAddr::V4(v4) = address {
        // In /31 and /32 every address is a host's (RFC 3021).
        let host_mask = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        let host = u32::from(v4) & host_mask;
        if prefix < 31 && host == 0 {
            return Err("is the address of the network itself".to_owned());
        }
        if prefix < 31 && host == host_mask {
            return Err("is the broadcast address of its network".to_owned());
        }
    }
    Ok((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_addresses() {
        assert_eq!(parse_prefixed("10.0.0.100/24"), Ok((IpAddr::from([10, 0, 0, 100]), 24)));
        assert!(parse_prefixed("2001:db8::5/64").is_ok());
        assert!(parse_prefixed("10.0.0.1/31").is_ok());
        assert!(parse_prefixed("10.0.0.1/32").is_ok());
        for bad in [
            "10.0.0.100",
            "10.0.0/24",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "10.0.0.1/33",
            "10.0.0.1/0",
            "::1/64",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "fe80::1/64",
            "10.0.0.1/x",
            "0.0.0.0/8",
        ] {
            assert!(parse_prefixed(bad).is_err(), "{bad}");
        }
    }
}
