# Homebrew's formula: builds factlib from a release's source. scripts/release fills in what is between two @.
class Factlib < Formula
  desc "Relay of facts committed in PostgreSQL to Kafka that loses none"
  homepage "https://github.com/factlib/factlib"
  url "https://github.com/factlib/factlib/releases/download/v@VERSION@/factlib-@VERSION@.tar.gz"
  sha256 "@SHA256@"
  license "MIT"

  depends_on "rust" => :build

  def install
    ENV["FACTLIB_COMMIT"] = "@COMMIT@"
    system "cargo", "install", "--no-default-features", "--features", "cli,oauth,schema-registry", *std_cargo_args
    man1.mkpath
    system bin/"factlib", "man", "--folder", man1
    generate_completions_from_executable(bin/"factlib", "completions")
    pkgetc.install "factlib.example.toml" => "factlib.toml"
    pkgshare.install "packaging/alerts.yaml", "packaging/grafana-dashboard.json", "packaging/least-privilege.sql"
  end

  service do
    run [opt_bin/"factlib", "run", "--config", etc/"factlib/factlib.toml"]
    keep_alive successful_exit: false
    log_path var/"log/factlib.log"
    error_log_path var/"log/factlib.log"
  end

  test do
    assert_match "factlib #{version}", shell_output("#{bin}/factlib --version")
    # Nothing listens: it says so, and connects to nothing else.
    port = free_port
    output = shell_output("#{bin}/factlib status --url http://127.0.0.1:#{port} 2>&1", 1)
    assert_match "no relay answers", output
  end
end
