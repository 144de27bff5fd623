defmodule Millrace.Http do
  @moduledoc "The routes. `post_event/1` is the hot path: key, content type, body, event, intake, 202."

  require Logger

  alias Millrace.{Database, Event, Intake, Keys, Problem, Processor}

  @tiers ["free", "pro", "business", "enterprise"]
  @states ["persisted", "delivered", "failed", "dead_letter"]
  @ack_looks_max 500
  @ack_look_ms 10
  @linger_bytes_max 16 * 1024 * 1024
  @linger_ms 1_000

  @doc "The listening server, as a child of a supervisor."
  def server(port) do
    options = [name: __MODULE__, ip: {127, 0, 0, 1}, port: port, nodelay: true, backlog: 1024, loop: {__MODULE__, :handle, []}]
    # Not started again when Drain has stopped it.
    %{id: __MODULE__, start: {:mochiweb_http, :start_link, [options]}, restart: :transient}
  end

  def handle(request) do
    Intake.add(:in_flight, 1)
    respond(request, answer(request))
  after
    Intake.add(:in_flight, -1)
  end

  defp answer(request) do
    path = :path |> :mochiweb_request.get(request) |> List.to_string()

    if Intake.count(:stopping) == 1 do
      Problem.unavailable("stopping", "the server is stopping")
    else
      route(:mochiweb_request.get(:method, request), String.split(path, "/", trim: true), request)
    end
  catch
    :exit, {:body_too_large, _} ->
      Problem.payload_too_large()

    kind, reason when not (kind == :exit and reason == :normal) ->
      Logger.error(Exception.format(kind, reason, __STACKTRACE__))
      Problem.new(500, "internal", "the server made a mistake; nothing was acknowledged")
  end

  defp route(:POST, ["api", "events"], request), do: post_event(request)
  defp route(:GET, ["api", "events", id], request), do: get_event(request, id)
  defp route(:GET, ["api", "inbox"], request), do: inbox(request)
  defp route(:POST, ["api", "ack", id], request), do: acknowledge(request, id)
  defp route(:POST, ["api", "keys", "generate"], request), do: generate_key(request)
  defp route(:GET, [path], _) when path in ["healthz", "health"], do: json(200, %{status: "ok"})
  defp route(:GET, ["readyz"], _), do: ready()
  defp route(:GET, ["metrics"], _), do: {200, [{"Content-Type", "text/plain; version=0.0.4"}], metrics()}
  defp route(_, ["api", "events"], _), do: method_not_allowed("POST")
  defp route(_, ["api", "keys", "generate"], _), do: method_not_allowed("POST")
  defp route(_, ["api", "ack", _], _), do: method_not_allowed("POST")
  defp route(_, ["api", "inbox"], _), do: method_not_allowed("GET")
  defp route(_, ["api", "events", _], _), do: method_not_allowed("GET")
  defp route(_, _, _), do: Problem.new(404, "no-such-route", "there is no such route")

  defp post_event(request) do
    with {:ok, organization_id} <- authenticate(request),
         :ok <- require_json(request),
         {:ok, repeat_key} <- repeat_key(request),
         body = body(request),
         {:ok, event} <- Event.parse(body, organization_id),
         repeat = repeat_key && {repeat_key, :crypto.hash(:sha256, body)},
         {:ok, id} <- Intake.accept(event, repeat) do
      id = Event.format_id(id)
      {202, [json_type(), {"Location", "/api/events/" <> id}], ~s({"id":"#{id}","status":"accepted","durability":"memory"})}
    end
  end

  defp get_event(request, id) do
    with {:ok, organization_id} <- authenticate(request), {:ok, id} <- event_id(id) do
      # In this order: an event leaves the buffer only when it has a row.
      case Intake.pending(id) do
        %Event{organization_id: ^organization_id} = event -> {200, [json_type()], Event.to_json(event)}
        _ -> stored(Database.ask(:event, [organization_id, id]))
      end
    end
  end

  defp stored({:ok, [row]}), do: {200, [json_type()], row |> Database.event() |> Event.to_json()}
  defp stored({:ok, []}), do: Problem.no_event()
  defp stored({:error, _}), do: Problem.database_unavailable()

  defp inbox(request) do
    query = for {name, value} <- :mochiweb_request.parse_qs(request), into: %{}, do: {to_string(name), to_string(value)}

    with {:ok, organization_id} <- authenticate(request),
         {:ok, state} <- state(query["status"]),
         {:ok, limit} <- number(query["limit"], 100, 1..1000, "limit", "is not a number from 1 to 1000"),
         {:ok, after_seq} <- number(query["cursor"], 0, 0..0x7FFFFFFFFFFFFFFF, "cursor", "is not the 'next_cursor' of a page"),
         {:ok, rows} <- Database.ask(:inbox, [organization_id, after_seq, state, limit]) do
      events = rows |> Enum.map(&(&1 |> Database.event() |> Event.to_json())) |> Enum.intersperse(",")
      next = if length(rows) == limit, do: ~s("#{rows |> List.last() |> List.last()}"), else: "null"
      {200, [json_type()], [~s({"events":[), events, ~s(],"next_cursor":), next, "}"]}
    else
      {:error, %Problem{}} = problem -> problem
      {:error, _} -> Problem.database_unavailable()
    end
  end

  defp state(none) when none in [nil, ""], do: {:ok, nil}
  defp state(state) when state in @states, do: {:ok, state}
  defp state(_), do: Problem.field("status", "is none of #{Enum.join(@states, ", ")}; send one of them, or leave it out")

  defp number(none, default, _, _, _) when none in [nil, ""], do: {:ok, default}

  defp number(text, _default, range, name, what) do
    case Integer.parse(text) do
      {number, ""} -> if number in range, do: {:ok, number}, else: Problem.field(name, what)
      _ -> Problem.field(name, what)
    end
  end

  defp acknowledge(request, id) do
    with {:ok, organization_id} <- authenticate(request),
         {:ok, id} <- event_id(id),
         :ok <- wait_until_persisted(id, @ack_looks_max) do
      case Database.ask(:acknowledge, [organization_id, id]) do
        {:ok, 1} -> json(200, %{id: Event.format_id(id), state: "delivered"})
        {:ok, 0} -> Problem.no_event()
        {:error, _} -> Problem.database_unavailable()
      end
    end
  end

  # Its sender may read, and so acknowledge, an event that has no row yet.
  defp wait_until_persisted(id, looks) do
    cond do
      Intake.pending(id) == nil ->
        :ok

      looks == 0 ->
        Problem.unavailable("database-unavailable", "the event could not be persisted yet")

      true ->
        Process.sleep(@ack_look_ms)
        wait_until_persisted(id, looks - 1)
    end
  end

  defp generate_key(request) do
    with :ok <- require_json(request),
         {:ok, wanted} <- json_object(body(request)),
         {:ok, name} <- organization_name(wanted["organization_name"]),
         {:ok, tier} <- tier(Map.get(wanted, "tier", "free")) do
      key = Keys.generate()
      organization_id = Event.new_id(System.os_time(:microsecond))

      case Database.ask(:add_key, [Keys.hash(key), organization_id, name, tier]) do
        {:ok, 1} ->
          # 0: no limit is enforced, whatever the tier.
          answer = %{organization_id: Event.format_id(organization_id), organization_name: name, api_key: key, tier: tier}
          json(201, Map.put(answer, :rate_limit_per_minute, 0))

        {:error, _} ->
          Problem.database_unavailable()
      end
    end
  end

  defp json_object(body) do
    case :jiffy.decode(body, [:return_maps]) do
      wanted when is_map(wanted) -> {:ok, wanted}
      _ -> Problem.new(400, "malformed-body", "the body is not an object; send one with 'organization_name'")
    end
  catch
    _, _ -> Problem.new(400, "malformed-body", "the body is not JSON; send an object with 'organization_name'")
  end

  defp organization_name(name) when is_binary(name) and name != "" do
    if String.length(name) <= 255 and not String.contains?(name, <<0>>), do: {:ok, name}, else: organization_name(nil)
  end

  defp organization_name(_), do: Problem.field("organization_name", "is not a string of 1 to 255 characters; send one")

  defp tier(tier) when tier in @tiers, do: {:ok, tier}
  defp tier(_), do: Problem.field("tier", "is none of #{Enum.join(@tiers, ", ")}; send one of them, or leave it out")

  defp ready do
    case Processor.status() do
      {_, _, true} -> json(200, %{status: "ready"})
      _ -> Problem.database_unavailable()
    end
  end

  defp metrics do
    {interval_ms, deep_idle, _} = Processor.status()

    """
    ingest_build_info{version="elixir",mode="cache-first",polling="wake",database="PostgreSQL"} 1
    ingest_pending_events #{Intake.pending_count()}
    ingest_pending_bytes #{Intake.count(:pending_bytes)}
    ingest_events_acknowledged_total #{Intake.count(:acknowledged)}
    ingest_events_persisted_total #{Intake.count(:persisted)}
    ingest_events_duplicate_total #{Intake.count(:duplicate)}
    ingest_poll_interval_seconds #{interval_ms / 1000}
    ingest_deep_idle #{if deep_idle, do: 1, else: 0}
    ingest_polls_total{source="store",state="empty"} #{Intake.count(:polls_empty)}
    ingest_polls_total{source="store",state="partial"} #{Intake.count(:polls_partial)}
    ingest_polls_total{source="store",state="full"} #{Intake.count(:polls_full)}
    """
  end

  defp authenticate(request) do
    case header(request, "authorization") do
      nil ->
        Keys.organization_of(String.trim(header(request, "x-api-key") || ""))

      <<scheme::binary-7, key::binary>> ->
        if String.downcase(scheme) == "bearer ", do: Keys.organization_of(String.trim(key)), else: Keys.organization_of("")

      _ ->
        Keys.organization_of("")
    end
  end

  defp require_json(request) do
    type = (header(request, "content-type") || "") |> String.split(";") |> hd() |> String.trim() |> String.downcase()
    if type == "application/json", do: :ok, else: Problem.new(415, "content-type", "send the body as application/json")
  end

  defp repeat_key(request) do
    case header(request, "idempotency-key") do
      nil -> {:ok, nil}
      key when byte_size(key) in 1..255 -> {:ok, key}
      _ -> Problem.field("Idempotency-Key", "is not 1 to 255 bytes long; send a shorter one")
    end
  end

  defp event_id(text), do: with(:error <- Event.parse_id(text), do: Problem.no_event())

  defp header(request, name) do
    with value when value != :undefined <- :mochiweb_request.get_header_value(name, request),
         do: IO.iodata_to_binary(value),
         else: (_ -> nil)
  end

  # Exits with :body_too_large, before anything is read where the length is known.
  defp body(request) do
    with :undefined <- :mochiweb_request.recv_body(Event.body_bytes_max(), request), do: ""
  end

  defp json(status, body), do: {status, [json_type()], :jiffy.encode(body)}
  defp json_type, do: {"Content-Type", "application/json"}

  defp method_not_allowed(allow) do
    Problem.new(405, "method-not-allowed", "this route takes #{allow}", %{}, [{"Allow", allow}])
  end

  defp respond(request, {:error, problem}) do
    headers = [{"Content-Type", "application/problem+json"} | problem.headers]
    respond(request, {problem.status, headers, Problem.body(problem)})
  end

  defp respond(request, {status, headers, body}) do
    :mochiweb_request.respond({status, headers, body}, request)
    if :mochiweb_request.should_close(request), do: linger(:mochiweb_request.get(:socket, request))
  end

  # mochiweb closes a connection of which it did not read the body. Closed with unread bytes in it, the answer might not arrive.
  defp linger(socket) do
    :gen_tcp.shutdown(socket, :write)
    throw_away(socket, @linger_bytes_max)
  end

  defp throw_away(socket, bytes) when bytes > 0 do
    with {:ok, data} <- :gen_tcp.recv(socket, 0, @linger_ms), do: throw_away(socket, bytes - byte_size(data))
  end

  defp throw_away(_, _), do: :ok
end

defmodule Millrace.Http.Drain do
  @moduledoc """
  Stops first: from then on no connection is taken and no new request, and those in flight are finished, or after 5 s left alone: nothing is
  taken in any more when this has ended.
  """
  use GenServer, shutdown: 10_000

  alias Millrace.{Http, Intake}

  @looks_max 500
  @look_ms 10

  def start_link(_), do: GenServer.start_link(__MODULE__, nil)

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)
    {:ok, nil}
  end

  @impl true
  def terminate(_reason, _state) do
    Intake.add(:stopping, 1)
    # Ends the listener alone; its connections are processes of their own.
    :mochiweb_http.stop(Http)
    wait(@looks_max)
    Intake.close()
  end

  defp wait(looks) do
    if looks > 0 and Intake.count(:in_flight) > 0 do
      Process.sleep(@look_ms)
      wait(looks - 1)
    end
  end
end
