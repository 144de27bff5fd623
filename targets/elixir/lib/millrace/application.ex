defmodule Millrace.Application do
  @moduledoc """
  The life of the server. Children stop in the reverse order: first the requests in flight end, then nothing listens any more, then what
  is pending is persisted. SIGTERM makes Erlang stop the application in this way.
  """
  use Application

  alias Millrace.{Database, Http, Intake, Processor}

  @impl true
  def start(_type, _args) do
    url = System.get_env("DATABASE_URL") || raise "set DATABASE_URL, for example to postgres://user@127.0.0.1:5432/events"
    port = String.to_integer(System.get_env("PORT", "8080"))
    pending_events_max = String.to_integer(System.get_env("PENDING_EVENTS_MAX", "50000"))

    databases = for name <- Database.names(), do: Supervisor.child_spec({Database, {name, url}}, id: name)
    rest = [{Intake, pending_events_max}, Processor, Http.server(port), Http.Drain]
    Supervisor.start_link(databases ++ rest, strategy: :rest_for_one, name: Millrace.Supervisor)
  end
end
