//! The table of managed services. Each row was read in the documentation that it names, not run.

use super::{Pooler, Service, Tokens};

const RDS_TOKENS: Option<Tokens> = Some(Tokens {
    needs: "GRANT rds_iam TO the role, which then has no password login; the parameter \
            rds.iam_auth_for_replication = 1, for the replication connection",
    command: "aws rds generate-db-auth-token --hostname $PGHOST --port $PGPORT --username $PGUSER",
});
const RDS_PROXY: Option<Pooler> = Some(Pooler {
    name: "an RDS Proxy",
    host: ".proxy-",
    port: None,
    remedy: "name the endpoint of the instance or the cluster",
});

/// The services; where two look alike, the more special one comes first.
pub(crate) const SERVICES: [Service; 8] = [
    Service {
        name: "Amazon Aurora",
        hosts: &[],
        settings: &["apg_", "aurora_"],
        roles: &[],
        parameters: "the DB cluster parameter group, and reboot the writer",
        wal_level: "set rds.logical_replication = 1 in the DB cluster parameter group, and reboot the writer",
        replication: "GRANT rds_replication TO {role}",
        slots: "before PostgreSQL 17, a major upgrade wants them dropped first; the green side of a blue/green \
                deployment does not have them",
        tokens: RDS_TOKENS,
        pooler: None,
        source: "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/AuroraPostgreSQL.Replication.Logical.html",
    },
    Service {
        name: "Amazon RDS",
        hosts: &[".rds.amazonaws.com", ".rds.amazonaws.com.cn"],
        settings: &["rds."],
        roles: &["rds_superuser"],
        parameters: "the DB parameter group, and reboot the instance",
        wal_level: "set rds.logical_replication = 1 in the DB parameter group, and reboot the instance",
        replication: "GRANT rds_replication TO {role}",
        slots: "before PostgreSQL 17, a major upgrade wants them dropped first; the green side of a blue/green \
                deployment does not have them",
        tokens: RDS_TOKENS,
        pooler: RDS_PROXY,
        source: "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/PostgreSQL.Concepts.General.FeatureSupport.LogicalReplication.html",
    },
    Service {
        name: "Google Cloud SQL",
        hosts: &[".sql.goog"],
        settings: &["cloudsql."],
        roles: &["cloudsqlsuperuser"],
        parameters: "the database flags of the instance, which restarts",
        wal_level: "set the flag cloudsql.logical_decoding = on, which restarts the instance",
        replication: "ALTER ROLE {role} REPLICATION",
        slots: "a major upgrade wants them dropped first",
        tokens: Some(Tokens {
            needs: "the flag cloudsql.iam_authentication = on, and an IAM user; for a service account, the \
                    role is its address without .gserviceaccount.com",
            command: "gcloud sql generate-login-token",
        }),
        pooler: None,
        source: "https://cloud.google.com/sql/docs/postgres/replication/configure-logical-replication",
    },
    Service {
        name: "Azure Database for PostgreSQL",
        hosts: &[".postgres.database.azure.com", ".postgres.database.chinacloudapi.cn"],
        settings: &["azure."],
        roles: &["azure_pg_admin", "azuresu"],
        parameters: "the server parameters, and restart the server",
        wal_level: "set wal_level = logical in the server parameters, and restart the server",
        replication: "ALTER ROLE {role} REPLICATION",
        slots: "before PostgreSQL 17, a high-availability failover keeps them only with the extension \
                pg_failover_slots; a major upgrade wants them dropped first",
        tokens: Some(Tokens {
            needs: "Microsoft Entra authentication, and a role that pgaadauth_create_principal() created",
            command: "az account get-access-token --resource-type oss-rdbms --query accessToken --output tsv",
        }),
        pooler: Some(Pooler {
            name: "Azure's PgBouncer",
            host: ".postgres.database.azure.com",
            port: Some(6432),
            remedy: "name port 5432",
        }),
        source: "https://learn.microsoft.com/azure/postgresql/flexible-server/concepts-logical",
    },
    Service {
        name: "Neon",
        hosts: &[".neon.tech"],
        settings: &["neon."],
        roles: &["neon_superuser"],
        parameters: "a support request: Neon sets it by the size of the compute",
        wal_level: "enable logical replication in the project's settings; it can't be switched off again, and \
                    restarts all computes",
        replication: "ALTER ROLE {role} REPLICATION",
        slots: "one without a reader is removed after about 40 hours, and restoring a branch removes all; while \
                the relay is connected, the compute does not scale to zero",
        tokens: None,
        pooler: Some(Pooler {
            name: "Neon's pooler",
            host: "-pooler.",
            port: None,
            remedy: "leave -pooler out of the host name",
        }),
        source: "https://neon.com/docs/guides/logical-replication-neon",
    },
    Service {
        name: "Supabase",
        hosts: &[".supabase.co", ".supabase.com"],
        settings: &[],
        roles: &["supabase_admin"],
        parameters: "the database configuration (supabase postgres-config update)",
        wal_level: "it is logical by default; set it by supabase postgres-config update",
        replication: "as postgres: ALTER ROLE {role} REPLICATION",
        slots: "not documented: look for the slot after the project was paused, restored or upgraded",
        tokens: None,
        pooler: Some(Pooler {
            name: "Supabase's pooler",
            host: ".pooler.supabase.com",
            port: None,
            remedy: "name the direct connection, db.<project>.supabase.co:5432, which needs IPv6 or the IPv4 add-on",
        }),
        source: "https://supabase.com/docs/guides/database/postgres/setup-replication-external",
    },
    Service {
        name: "Crunchy Bridge",
        hosts: &[".postgresbridge.com"],
        settings: &[],
        roles: &[],
        parameters: "the cluster's configuration parameters, and restart it",
        wal_level: "set wal_level = logical in the cluster's configuration parameters, and restart it",
        replication: "as postgres: ALTER ROLE {role} REPLICATION",
        slots: "not documented: look for the slot after a failover, a resize or an upgrade",
        tokens: None,
        pooler: None,
        source: "https://docs.crunchybridge.com",
    },
    Service {
        name: "Aiven",
        hosts: &[".aivencloud.com"],
        settings: &[],
        roles: &["avnadmin"],
        parameters: "the service's advanced configuration",
        wal_level: "set wal_level = logical in the service's advanced configuration",
        replication: "as avnadmin: ALTER ROLE {role} REPLICATION",
        slots: "not documented: look for the slot after maintenance, a change of the plan or an upgrade",
        tokens: None,
        pooler: None,
        source: "https://aiven.io/docs/products/postgresql",
    },
];
