package com.atguigu.yygh.order;

import static org.assertj.core.api.Assertions.assertThat;

import com.atguigu.yygh.model.hosp.Schedule;
import com.atguigu.yygh.model.order.DayCount;
import com.atguigu.yygh.model.order.HospitalCount;
import com.atguigu.yygh.model.order.Order;
import com.atguigu.yygh.model.order.Order.Status;
import java.math.BigDecimal;
import java.time.LocalDate;
import java.util.List;
import org.junit.jupiter.api.Test;

class CountsTest {

    private static final LocalDate MONDAY = LocalDate.of(2030, 1, 7);
    private static final LocalDate TUESDAY = MONDAY.plusDays(1);

    @Test
    void daysComeInOrderAndCancelledOrdersBringInNothing() {
        List<Order> orders = List.of(
                order("1002", Status.PAID, TUESDAY, 60),
                order("1001", Status.CANCELLED, MONDAY, 100),
                order("1001", Status.UNPAID, MONDAY, 30));
        assertThat(Counts.byDay(orders)).containsExactly(
                new DayCount(MONDAY, 2, 1, BigDecimal.valueOf(30)),
                new DayCount(TUESDAY, 1, 0, BigDecimal.valueOf(60)));
        assertThat(Counts.byHospital(orders)).containsExactly(
                new HospitalCount("1001", 2, 1, BigDecimal.valueOf(30)),
                new HospitalCount("1002", 1, 0, BigDecimal.valueOf(60)));
    }

    @Test
    void theInventedOrdersCoverAWeek() {
        assertThat(Counts.byDay(new Orders().all())).hasSize(7);
    }

    private static Order order(String hoscode, Status status, LocalDate placed, int fee) {
        return new Order(1, status, hoscode, "nk01", "s", "医生", placed.plusDays(1), Schedule.Slot.MORNING, 1,
                BigDecimal.valueOf(fee), 1, placed.atStartOfDay());
    }
}
