package com.atguigu.yygh.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.hosp.Schedule;
import com.atguigu.yygh.model.order.Order;
import com.atguigu.yygh.model.order.Order.Status;
import java.math.BigDecimal;
import java.time.LocalDate;
import java.time.LocalDateTime;
import org.junit.jupiter.api.Test;

class ModelTest {

    private static final LocalDate DAY = LocalDate.of(2030, 1, 7);

    @Test
    void aScheduleGivesOutItsNumbersAndNoMore() {
        Schedule full = schedule(1).take();
        assertThat(full.available()).isZero();
        assertThatThrownBy(full::take).isInstanceOf(YyghException.class).hasMessageContaining("号源已满");
    }

    @Test
    void aScheduleTakesBackNoMoreThanItGaveOut() {
        assertThat(schedule(1).take().giveBack().giveBack().available()).isEqualTo(1);
    }

    @Test
    void anOrderIsPaidOnce() {
        Order paid = order(Status.UNPAID).pay();
        assertThat(paid.status()).isEqualTo(Status.PAID);
        assertThatThrownBy(paid::pay).hasMessageContaining("已支付");
    }

    @Test
    void anOrderThatWasVisitedCannotBeCancelled() {
        assertThatThrownBy(order(Status.VISITED)::cancel).isInstanceOf(YyghException.class);
    }

    private static Schedule schedule(int numbers) {
        return new Schedule(
                "s", "h", "d", "医生", "主任医师", "", DAY, Schedule.Slot.MORNING, numbers, numbers, BigDecimal.TEN);
    }

    private static Order order(Status status) {
        return new Order(1, status, "h", "d", "s", "医生", DAY, Schedule.Slot.MORNING, 1, BigDecimal.TEN, 1,
                LocalDateTime.of(2030, 1, 1, 8, 0));
    }
}
