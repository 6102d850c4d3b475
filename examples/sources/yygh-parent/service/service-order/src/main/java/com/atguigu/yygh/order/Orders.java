package com.atguigu.yygh.order;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.hosp.Schedule;
import com.atguigu.yygh.model.hosp.Schedule.Slot;
import com.atguigu.yygh.model.order.Order;
import com.atguigu.yygh.model.order.Order.Status;
import java.math.BigDecimal;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.springframework.stereotype.Repository;

/** The orders of the last week, made up at start, and those placed since; the newest first. */
@Repository
class Orders {

    private static final int INVENTED = 48;
    private static final String[] HOSPITALS = {"1001", "1001", "1002", "1002", "1003", "1004", "1005", "1006"};
    private static final String[] DEPARTMENTS = {"nk01", "nk02", "wk01", "wk02", "ek01", "fc01", "yk01", "zy01"};
    private static final String[] DOCTORS = {"林知远", "苏明月", "陈望舒", "何清和", "许安然", "沈怀瑾"};
    private static final int[] FEES = {100, 60, 30};

    private final ConcurrentSkipListMap<Long, Order> orders = new ConcurrentSkipListMap<>(Comparator.reverseOrder());
    private final AtomicLong ids = new AtomicLong(20_000);

    Orders() {
        Random random = new Random(7);
        LocalDateTime start = LocalDate.now().minusDays(7).atTime(8, 0);
        Stream.generate(() -> start.plusDays(random.nextInt(7)).plusMinutes(random.nextInt(600)))
                .limit(INVENTED)
                .sorted()
                .forEach(placed -> add(invent(random, placed)));
    }

    List<Order> all() {
        return List.copyOf(orders.values());
    }

    Order get(long id) {
        Order order = orders.get(id);
        if (order == null) {
            throw YyghException.notFound("订单", id);
        }
        return order;
    }

    Order place(Schedule schedule, long patientId) {
        return add(new Order(
                ids.incrementAndGet(),
                Status.UNPAID,
                schedule.hoscode(),
                schedule.depcode(),
                schedule.id(),
                schedule.doctor(),
                schedule.workDate(),
                schedule.slot(),
                patientId,
                schedule.fee(),
                schedule.reserved() - schedule.available(),
                LocalDateTime.now().withNano(0)));
    }

    Order change(long id, UnaryOperator<Order> change) {
        get(id);
        return orders.computeIfPresent(id, (same, order) -> change.apply(order));
    }

    private Order add(Order order) {
        orders.put(order.id(), order);
        return order;
    }

    private Order invent(Random random, LocalDateTime placed) {
        String hoscode = HOSPITALS[random.nextInt(HOSPITALS.length)];
        String depcode = DEPARTMENTS[random.nextInt(DEPARTMENTS.length)];
        LocalDate visit = placed.toLocalDate().plusDays(1 + random.nextInt(3));
        Slot slot = Slot.values()[random.nextInt(2)];
        return new Order(
                ids.incrementAndGet(),
                status(random.nextInt(10), visit),
                hoscode,
                depcode,
                String.join("-", hoscode, depcode, visit.toString().replace("-", ""), slot == Slot.MORNING ? "AM" : "PM"),
                DOCTORS[random.nextInt(DOCTORS.length)],
                visit,
                slot,
                1 + random.nextInt(8),
                BigDecimal.valueOf(FEES[random.nextInt(FEES.length)]),
                1 + random.nextInt(30),
                placed);
    }

    private static Status status(int dice, LocalDate visit) {
        if (dice == 0) {
            return Status.CANCELLED;
        }
        if (visit.isBefore(LocalDate.now())) {
            return Status.VISITED;
        }
        return dice < 4 ? Status.UNPAID : Status.PAID;
    }
}
