defmodule Millrace.Processor do
  @moduledoc """
  Writes what is pending in batches, then looks for rows that were left in the table; waits 100 ms, doubling to 2 s while nothing is found,
  and 30 s from the tenth empty poll in a row on. An arrival cuts every wait but the shortest: under load that would be a batch for each event.
  """
  use GenServer, shutdown: 15_000
  require Logger

  alias Millrace.{Database, Intake}

  @batch_events_max 500
  @base_ms 100
  @backoff_ms_max 2_000
  @deep_idle_ms 30_000
  @deep_idle_after 10
  @retry_ms 500

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "What it waits now, ms; whether that is deep idle; whether the database answered the last time."
  def status, do: :persistent_term.get(__MODULE__, {@base_ms, false, true})

  @impl true
  def init(_) do
    # Without it terminate/2 is not called, which persists what is pending.
    Process.flag(:trap_exit, true)
    {:ok, %{empty: 0, timer: nil}, {:continue, :poll}}
  end

  @impl true
  def handle_continue(:poll, state), do: poll(state)

  @impl true
  def handle_info(:poll, state), do: poll(state)

  def handle_info(:arrived, %{timer: timer} = state) do
    # The shortest wait goes on; so does one that ends now.
    if interval_ms(state.empty) > @base_ms and Process.cancel_timer(timer), do: poll(state), else: {:noreply, state}
  end

  def handle_info({:EXIT, _, _}, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, _state) do
    give_up_at = System.monotonic_time(:millisecond) + 14_000
    drain(give_up_at)
  end

  defp drain(give_up_at) do
    case write() do
      {:ok, 0} ->
        :ok

      {:ok, _} ->
        drain(give_up_at)

      {:error, reason} ->
        if System.monotonic_time(:millisecond) > give_up_at do
          Logger.error(
            "stopped with #{Intake.pending_count()} acknowledged events that could not be persisted: #{inspect(reason, limit: 8, printable_limit: 300)}"
          )
        else
          Process.sleep(@retry_ms)
          drain(give_up_at)
        end
    end
  end

  defp poll(state) do
    case work() do
      {:ok, @batch_events_max} ->
        poll(%{state | empty: 0})

      {:ok, found} ->
        empty = if found == 0, do: state.empty + 1, else: 0
        note_change(state.empty, empty)
        # What came meanwhile did not wake anybody.
        wait_ms = if Intake.pending_count() > 0, do: @base_ms, else: interval_ms(empty)
        put_status(empty, true)
        {:noreply, %{state | empty: empty, timer: Process.send_after(self(), :poll, wait_ms)}}

      {:error, reason} ->
        put_status(state.empty, false)
        Logger.error("could not persist; #{Intake.pending_count()} events are pending: #{inspect(reason, limit: 8, printable_limit: 300)}")
        {:noreply, %{state | empty: 0, timer: Process.send_after(self(), :poll, @retry_ms)}}
    end
  end

  defp work do
    with {:ok, written} when written < @batch_events_max <- write(),
         {:ok, found} <- Database.claim(@batch_events_max) do
      polls = if found == 0, do: :polls_empty, else: if(found < @batch_events_max, do: :polls_partial, else: :polls_full)
      Intake.add(polls, 1)
      {:ok, max(written, found)}
    end
  end

  defp write do
    events = Intake.oldest(@batch_events_max)

    with true <- events != [], {:ok, _} <- Database.write(events) do
      Intake.persisted(events)
      {:ok, length(events)}
    else
      false -> {:ok, 0}
      error -> error
    end
  end

  defp interval_ms(empty) when empty >= @deep_idle_after, do: @deep_idle_ms
  defp interval_ms(empty), do: min(@base_ms * Integer.pow(2, max(empty - 1, 0)), @backoff_ms_max)

  defp note_change(before, now) do
    if before < @deep_idle_after and now >= @deep_idle_after, do: Logger.info("deep idle entered")
    if before >= @deep_idle_after and now < @deep_idle_after, do: Logger.info("deep idle left")
  end

  # Written only when it changes: that is dear, and reading is free.
  defp put_status(empty, store_answers) do
    status = {interval_ms(empty), empty >= @deep_idle_after, store_answers}
    if status != status(), do: :persistent_term.put(__MODULE__, status)
  end
end
