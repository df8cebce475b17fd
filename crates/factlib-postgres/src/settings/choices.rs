//! Keywords whose values come from a fixed set (`sslmode`, `target_session_attrs`, …).

/// The values of a keyword with a fixed set, by name.
pub(crate) trait Choice: Copy + Default + 'static {
    const ALL: &'static [(&'static str, Self)];
}

/// Protection by TLS (`sslmode`), from weak to strong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists.
    Allow,
    /// TLS if the server offers it.
    #[default]
    Prefer,
    /// Always TLS; verified like verify-ca if a root certificate exists.
    Require,
    /// Always TLS, with a certificate of a trusted authority.
    VerifyCa,
    /// As verify-ca, and the certificate is issued for the requested host.
    VerifyFull,
}

impl Choice for SslMode {
    const ALL: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

/// Start of TLS (`sslnegotiation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslNegotiation {
    /// After a request in PostgreSQL's protocol.
    #[default]
    Postgres,
    /// Immediately; PostgreSQL 17 or later.
    Direct,
}

impl Choice for SslNegotiation {
    const ALL: &'static [(&'static str, Self)] =
        &[("postgres", Self::Postgres), ("direct", Self::Direct)];
}

/// Binding of a SCRAM login to the TLS connection (`channel_binding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

impl Choice for ChannelBinding {
    const ALL: &'static [(&'static str, Self)] =
        &[("disable", Self::Disable), ("prefer", Self::Prefer), ("require", Self::Require)];
}

/// Order in which hosts and their addresses are tried (`load_balance_hosts`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LoadBalanceHosts {
    /// The order in which they are listed.
    #[default]
    Disable,
    Random,
}

impl Choice for LoadBalanceHosts {
    const ALL: &'static [(&'static str, Self)] =
        &[("disable", Self::Disable), ("random", Self::Random)];
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TlsVersion {
    Tls1,
    Tls1_1,
    /// libpq's own minimum.
    #[default]
    Tls1_2,
    Tls1_3,
}

impl Choice for TlsVersion {
    const ALL: &'static [(&'static str, Self)] = &[
        ("TLSv1", Self::Tls1),
        ("TLSv1.1", Self::Tls1_1),
        ("TLSv1.2", Self::Tls1_2),
        ("TLSv1.3", Self::Tls1_3),
    ];
}

/// Kind of server that a session needs (`target_session_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetSessionAttrs {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Choice for TargetSessionAttrs {
    const ALL: &'static [(&'static str, Self)] = &[
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];
}

impl TargetSessionAttrs {
    /// Returns the kinds of server to look for, one after the other, on all hosts.
    pub fn rounds(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Any],
            Self::ReadWrite => &[Self::ReadWrite],
            Self::ReadOnly => &[Self::ReadOnly],
            Self::Primary => &[Self::Primary],
            Self::Standby => &[Self::Standby],
            Self::PreferStandby => &[Self::Standby, Self::Any],
        }
    }

    /// Returns a query and the answer that a server of this kind gives.
    pub fn probe(self) -> Option<(&'static str, &'static str)> {
        const READ_ONLY: &str = "SHOW transaction_read_only";
        // CASE, because replication connections print booleans differently.
        const IN_RECOVERY: &str =
            "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END";
        match self {
            Self::Any => None,
            Self::ReadWrite => Some((READ_ONLY, "off")),
            Self::ReadOnly => Some((READ_ONLY, "on")),
            Self::Primary => Some((IN_RECOVERY, "off")),
            Self::Standby | Self::PreferStandby => Some((IN_RECOVERY, "on")),
        }
    }
}
