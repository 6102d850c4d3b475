package com.atguigu.yygh.order.client;

import com.atguigu.yygh.model.order.DayCount;
import com.atguigu.yygh.model.order.HospitalCount;
import com.atguigu.yygh.model.order.NewOrder;
import com.atguigu.yygh.model.order.Order;
import com.atguigu.yygh.model.order.OrderView;
import java.time.LocalDate;
import java.util.List;
import org.springframework.format.annotation.DateTimeFormat;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.service.annotation.GetExchange;
import org.springframework.web.service.annotation.HttpExchange;
import org.springframework.web.service.annotation.PostExchange;

/** Orders. */
@HttpExchange("/api/order")
public interface OrderApi {

    @GetExchange("/orders")
    List<OrderView> orders(@RequestParam(required = false) Order.Status status);

    @GetExchange("/orders/{id}")
    OrderView order(@PathVariable long id);

    @PostExchange("/orders")
    OrderView place(@RequestBody NewOrder order);

    @PostExchange("/orders/{id}/pay")
    OrderView pay(@PathVariable long id);

    @PostExchange("/orders/{id}/cancel")
    OrderView cancel(@PathVariable long id);

    @GetExchange("/visits/{day}")
    List<Order> visits(@PathVariable @DateTimeFormat(iso = DateTimeFormat.ISO.DATE) LocalDate day);

    @GetExchange("/counts/days")
    List<DayCount> countByDay();

    @GetExchange("/counts/hospitals")
    List<HospitalCount> countByHospital();
}
