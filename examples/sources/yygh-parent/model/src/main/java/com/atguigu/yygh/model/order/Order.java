package com.atguigu.yygh.model.order;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.hosp.Schedule;
import java.math.BigDecimal;
import java.time.LocalDate;
import java.time.LocalDateTime;

/** A booked number. */
public record Order(
        long id,
        Status status,
        String hoscode,
        String depcode,
        String scheduleId,
        String doctor,
        LocalDate visitDate,
        Schedule.Slot slot,
        long patientId,
        BigDecimal fee,
        int number,
        LocalDateTime placed) {

    public enum Status {
        UNPAID("预约成功，待支付"), PAID("已支付"), VISITED("已取号"), CANCELLED("已取消");

        private final String text;

        Status(String text) {
            this.text = text;
        }

        public String text() {
            return text;
        }
    }

    public Order pay() {
        return in(Status.PAID, status == Status.UNPAID);
    }

    public Order cancel() {
        return in(Status.CANCELLED, status == Status.UNPAID || status == Status.PAID);
    }

    private Order in(Status next, boolean allowed) {
        if (!allowed) {
            throw YyghException.conflict("订单" + status.text() + "，不能变为" + next.text());
        }
        return new Order(
                id, next, hoscode, depcode, scheduleId, doctor, visitDate, slot, patientId, fee, number, placed);
    }
}
