defmodule Millrace.MixProject do
  use Mix.Project

  def project do
    # No dependencies for mix to fetch: mochiweb, jiffy and p1_pgsql are the system's packages, found on Erlang's own path.
    [app: :millrace, version: "1.0.0", elixir: "~> 1.14", start_permanent: true, deps: []]
  end

  def application do
    [mod: {Millrace.Application, []}, extra_applications: [:logger, :crypto, :mochiweb, :jiffy, :p1_pgsql]]
  end
end
